"""Records what a model gives a sampler at each noise level, and makes a front of schedules of it.

A front that was recorded grows with every further run at the same noise levels: its output products are means over all
images so far.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from ecad.errors import EcadError
from ecad.integrations.comfyui.cached import CachedCalls
from ecad.integrations.comfyui.model import DIRECTION, Model, on_each_run
from ecad.integrations.recorded import Recording, add_to_front, products_of, refuse_other_sigmas

KEY = "ecad recording"


def recorded_model(model: Model, file: Path) -> Model:
    """A copy of a MODEL whose runs are recorded into a front's file; the model itself stays as it is.

    Args:
        model: a MODEL; it computes every step.
        file: of the front; a run at the noise levels it was recorded at adds to it.

    Raises:
        EcadError: the model runs under a schedule, so that not all its outputs are its own.
    """
    if isinstance(model.model_options.get("model_function_wrapper"), CachedCalls):
        raise EcadError("this MODEL runs under a cache schedule: record the one before its node")
    patched = model.clone()
    recorder = Recorder(file)
    patched.set_model_sampler_post_cfg_function(recorder.see)
    on_each_run(patched, KEY, recorder.run)
    return patched


class Recorder:
    """Sees the outputs of one model's runs, after guidance.

    Args:
        file: where the front goes.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._outputs: dict[float, torch.Tensor] = {}

    def __deepcopy__(self, memo: object) -> Recorder:
        # ComfyUI copies a model's options at every node, but not the wrappers of its runs.
        return self

    def see(self, args: dict[str, Any]) -> torch.Tensor:
        """The post-guidance function of a sampler: looks, and changes nothing."""
        denoised: torch.Tensor = args["denoised"]
        sigma = float(args["sigma"].flatten()[0])
        if sigma > 0 and sigma not in self._outputs:
            output = DIRECTION.output(args["input"], denoised, sigma)
            self._outputs[sigma] = output.detach().to("cpu", torch.float32, copy=True)
        return denoised

    def run(self, executor: Callable[..., torch.Tensor], *args: Any, **kwargs: torch.Tensor) -> torch.Tensor:
        """One run of a sampler, seen from around: `executor(noise, latent_image, sampler, sigmas, ...)`."""
        told: torch.Tensor = args[3] if len(args) > 3 else kwargs["sigmas"]
        sigmas = told.double().tolist()
        refuse_other_sigmas(self.file, sigmas)
        self._outputs = {}
        try:
            result = executor(*args, **kwargs)
            self._write(sigmas)
            return result
        finally:
            self._outputs = {}

    def _write(self, sigmas: list[float]) -> None:
        rows = [self._at(sigma) for sigma in sigmas if sigma > 0]
        outputs = torch.stack([row.flatten() for row in rows]).double().numpy()
        # The noise of flow matching is a share; that of other models is up to many times an image's.
        prediction: Literal["flow_prediction", "epsilon"] = "flow_prediction" if sigmas[0] <= 1 else "epsilon"
        front = add_to_front(self.file, Recording(sigmas, products_of(outputs), len(rows[0]), prediction))
        logging.info("ecad: %s: %d schedules, of %s images", self.file, len(front.points), front.provenance["images"])

    def _at(self, sigma: float) -> torch.Tensor:
        nearest = min(self._outputs, key=lambda seen: abs(seen - sigma), default=0.0)
        if abs(nearest - sigma) > 1e-3 * sigma:
            raise EcadError(
                f"{self.file}: not recorded: the sampler did not call the model at the noise level {sigma:g} of its "
                "row; record with a sampler that takes its steps as given, such as euler"
            )
        return self._outputs[nearest]
