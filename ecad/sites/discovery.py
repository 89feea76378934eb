"""Finds the denoisers of a pipeline, and the sites of a denoiser: the submodules whose outputs may be reused."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ecad.errors import EcadError, ScheduleError
from ecad.sites.families import COMPONENT_NAMES, FAMILIES, Family
from ecad.sites.names import DENOISER_SITES

if TYPE_CHECKING:
    from torch import nn

# The attributes of pipelines that hold denoisers; of a pipeline with a transformer and a prior, the transformers count.
# Wan 2.2's second transformer takes over at low noise, Ideogram 4's other one runs the pass without a prompt.
_DENOISERS = (("transformer", "transformer_2", "unconditional_transformer"), ("unet",), ("prior",), ("decoder",))

# Names of a denoiser's argument for the noise level, beside those with "timestep" in them.
_TIMES = ("t", "ts", "sigma", "sigmas", "r")


class Site(NamedTuple):
    """One (block, component) of a denoiser, as a schedule names it, and the submodule that it stands for.

    The path of a denoiser as a whole is empty.
    """

    block: str
    component: str
    path: str
    module: nn.Module


def denoisers(pipe: object) -> dict[str, Any]:
    """The denoisers of a pipeline, by attribute name: modules, or engines, which are any callables.

    Args:
        pipe: a diffusers pipeline, or a module, which is then called "transformer"; compiled or not.

    Raises:
        EcadError: there is no denoiser.
    """
    if found := find_denoisers(pipe):
        return found
    raise EcadError(
        f"{type(pipe).__name__} has no denoiser and cannot be cached; pass a diffusers pipeline with a transformer or "
        "a UNet, or the denoiser itself"
    )


def find_denoisers(pipe: object) -> dict[str, Any]:
    """What `denoisers` gives; empty if there is none."""
    if _is_a(pipe, "Module"):
        return {"transformer": unwrapped(pipe)}
    for names in _DENOISERS:
        parts = {name: unwrapped(getattr(pipe, name, None)) for name in names}
        found = {name: part for name, part in parts.items() if callable(part)}
        # A transformer of a pipeline is its denoiser; a decoder may be anything.
        if found and (names is _DENOISERS[0] or all(map(_takes_time, found.values()))):
            return found
    return {}


def one_denoiser(pipe: object) -> Any:
    """The only denoiser of a pipeline.

    Args:
        pipe: as for `denoisers`.

    Raises:
        EcadError: there is no denoiser, or more than one.
    """
    modules = denoisers(pipe)
    if len(modules) > 1:
        raise EcadError(
            f"{type(pipe).__name__} has {len(modules)} denoisers ({', '.join(modules)}); only one can be used "
            f"here: pass one of them, such as pipe.{next(iter(modules))}"
        )
    return next(iter(modules.values()))


def unwrapped(module: Any) -> Any:
    """The module that `torch.compile` wrapped, or the module itself."""
    return getattr(module, "_orig_mod", module)


def discover(transformer: nn.Module) -> list[Site]:
    """List a denoiser's sites in gene order, by the table of families or by diffusers' usual submodule names.

    A UNet, an engine, or a denoiser without blocks that are known, is one site: its own output.

    Args:
        transformer: a denoiser, compiled or not, on any device.

    >>> from diffusers import PixArtTransformer2DModel
    >>> model = PixArtTransformer2DModel(2, 4, num_layers=1, cross_attention_dim=8, norm_num_groups=1)
    >>> for site in discover(model):
    ...     print(site.block, site.component, site.path)
    0 attn1 transformer_blocks.0.attn1
    0 attn2 transformer_blocks.0.attn2
    0 ff transformer_blocks.0.ff
    """
    transformer = unwrapped(transformer)
    if is_whole(transformer):
        return whole(transformer)
    family = family_of(transformer)
    sites = _by_usual_names(transformer) if family is None else _by_table(transformer, family)
    return sites or whole(transformer)


def whole(denoiser: nn.Module) -> list[Site]:
    """A denoiser as one site: its own output."""
    ((block, component),) = DENOISER_SITES
    return [Site(block, component, "", denoiser)]


def is_whole(denoiser: object) -> bool:
    """Whether a denoiser is taken as a whole, whatever it is made of: a UNet, or an engine that is no module."""
    # Blocks of a UNet work at several resolutions and reach each other past those in between.
    return not _is_a(denoiser, "Module") or (hasattr(denoiser, "down_blocks") and hasattr(denoiser, "up_blocks"))


def named_sites(transformer: nn.Module, names: Iterable[tuple[str, str]]) -> list[Site]:
    """List the sites that a schedule refers to: those that `discover` finds, or others that it names explicitly.

    A schedule of whole steps for any denoiser has the one site of `whole`.

    A schedule may name any submodule as a site: the module path of a block, and a path from there. If one such site is
    not among those that `discover` finds, the schedule's own sites replace all of them.

    Args:
        transformer: as for `discover`.
        names: (block, component) of each of the schedule's sites, in gene order.

    Raises:
        ScheduleError: explicitly named sites contain each other, or leave out blocks of the same list.
        EcadError: the names are not submodules, and `discover` finds no blocks.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.ModuleDict({"mixer": nn.Linear(2, 2)}), nn.ModuleDict({"mixer": nn.Linear(2, 2)}))
    >>> [site.path for site in named_sites(model, [("0", "mixer"), ("1", "mixer")])]
    ['0.mixer', '1.mixer']
    """
    names, transformer = list(names), unwrapped(transformer)
    if tuple(names) == DENOISER_SITES or is_whole(transformer):
        return whole(transformer)
    modules = dict(transformer.named_modules())
    explicit = [
        Site(block, component, path, modules[path])
        for block, component in names
        if (path := f"{block}.{component}") in modules
    ]
    all_resolve = len(explicit) == len(names)
    found = discover(transformer)
    if not all_resolve and not found[0].path:
        raise EcadError(
            f"{type(transformer).__name__} has no list of blocks with components such as attn1 and ff; name the sites "
            "in the schedule by module path, such as ('layers.0', 'mixer'), or the denoiser as a whole"
        )
    if not all_resolve or {(site.block, site.component) for site in found}.issuperset(names):
        return found
    _check_explicit(transformer, explicit, modules)
    return explicit


def family_of(transformer: nn.Module) -> Family | None:
    """The table entry for a transformer's class or one of its base classes; None if there is none."""
    return next((family for family in FAMILIES if _is_a(transformer, *family.transformers)), None)


def _takes_time(module: Any) -> bool:
    """Whether a module is called with a noise level or timestep; a decoder of images, say, is not."""
    told = inspect.signature(getattr(module, "forward", module)).parameters.values()
    return any(
        "timestep" in one.name or one.name in _TIMES or one.kind is inspect.Parameter.VAR_KEYWORD for one in told
    )


def _is_a(value: object, *classes: str) -> bool:
    """Whether a value's class or one of its base classes has one of these names. Needs no import of torch."""
    return not {cls.__name__ for cls in type(value).__mro__}.isdisjoint(classes)


def _by_table(transformer: nn.Module, family: Family) -> list[Site]:
    blocks = [
        (index, order, block_list, block)
        for order, block_list in enumerate(family.block_lists)
        for index, block in enumerate(getattr(transformer, block_list.path, ()))
    ]
    if family.interleaved:
        blocks.sort(key=lambda block: block[:2])
    return [
        Site(
            block_list.block_key.format(path=block_list.path, index=index),
            block_list.prefix + name,
            f"{block_list.path}.{index}.{name}",
            module,
        )
        for index, _, block_list, block in blocks
        for name in block_list.components
        if (module := getattr(block, name, None)) is not None
    ]


def _by_usual_names(transformer: nn.Module) -> list[Site]:
    return [
        site
        for path, child in transformer.named_children()
        if _is_a(child, "ModuleList", "ModuleDict")
        for site in _within(child, path)
    ]


def _within(module: nn.Module, path: str) -> Iterator[Site]:
    """A block's own sites, then those of the blocks inside it (HiDream wraps each of its blocks in another)."""
    children = dict(module.named_children())
    for name in COMPONENT_NAMES:
        if name in children:
            gate = "gated_" if name == "proj_mlp" and _is_gated(module) else ""
            yield Site(path, gate + name, f"{path}.{name}", children.pop(name))
    for name, child in children.items():
        yield from _within(child, f"{path}.{name}")


def _is_gated(block: nn.Module) -> bool:
    """Whether the output of `proj_mlp` is wider than the input of `proj_out`: the block splits it for the gate."""
    out_features = getattr(getattr(block, "proj_mlp", None), "out_features", 0)
    in_features = getattr(getattr(block, "proj_out", None), "in_features", out_features)
    return bool(out_features > in_features)


def _check_explicit(transformer: nn.Module, sites: list[Site], modules: dict[str, nn.Module]) -> None:
    paths = {site.path for site in sites}
    for site in sites:
        parts = site.path.split(".")
        outer = next((path for i in range(1, len(parts)) if (path := ".".join(parts[:i])) in paths), None)
        if outer is not None:
            raise ScheduleError(
                f"this site is inside the site {outer} and would not run when that one is reused",
                block=site.block,
                component=site.component,
                remedy="name one of the two",
            )
        above = site.block.rpartition(".")[0]
        siblings = _in_list(above, modules[above])
        unnamed = {f"{block}.{site.component}": block for block in siblings}
        left_out = [block for path, block in unnamed.items() if path in modules and path not in paths]
        if left_out:
            raise ScheduleError(
                f"the schedule does not fit {type(transformer).__name__}",
                block=left_out[0],
                component=site.component,
                expected=f"this component in {len(siblings)} blocks",
                found=f"{len(siblings) - len(left_out)}",
                remedy="name it in every block of the list, recomputed at every step where it should not be cached",
            )


def _in_list(path: str, module: nn.Module) -> list[str]:
    """The paths of a list's blocks; empty if the module is not a list."""
    is_list = _is_a(module, "ModuleList", "ModuleDict", "Sequential")
    return [f"{path}.{name}".removeprefix(".") for name, _ in module.named_children()] if is_list else []
