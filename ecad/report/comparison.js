"use strict";
// The first image of the row is laid over each of the others; the style shows their difference.
document.getElementById("differences")?.addEventListener("change", (event) => {
  for (const row of document.querySelectorAll(".pictures tbody tr")) {
    const [first, ...others] = [...row.cells].slice(1).map((cell) => cell.querySelector(".laid"));
    if (!first) continue;
    for (const place of others.filter(Boolean)) {
      place.classList.toggle("difference", event.target.checked);
      if (event.target.checked) place.append(Object.assign(new Image(), { src: first.querySelector("img").src, alt: "" }));
      else place.lastElementChild.remove();
    }
  }
});
