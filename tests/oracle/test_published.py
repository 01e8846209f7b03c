"""Our measures against the published implementations, on the same features or the same random weights.

Run with `tests/oracle/run`, which makes an environment of its own; elsewhere the module is left out.
"""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest
import torch

from cinetune.metrics import KernelTable, alexnet_lpips, frechet, gaussian, kid, lpips_curve
from cinetune.metrics.nets.i3d import I3dLogits
from cinetune.metrics.nets.inception import InceptionFeatures

if any(importlib.util.find_spec(name) is None for name in ("cleanfid", "torch_fidelity", "lpips", "torchvision")):
    pytest.skip("needs the environment of tests/oracle/run", allow_module_level=True)

# The CPU build of torch comes without torchvision's compiled operators; their names alone let it be imported.
_shim = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    try:
        _shim.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:  # a build that has them
        break

pytestmark = pytest.mark.oracle


def features(n: int, d: int, *, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * (1 / np.arange(1, d + 1)) ** 0.5 + shift


@pytest.mark.parametrize(("n", "m", "d"), [(300, 260, 32), (120, 200, 64)])
def test_frechet_equals_clean_fid_torch_fidelity_and_torchmetrics(n: int, m: int, d: int) -> None:
    from cleanfid.fid import frechet_distance  # pyright: ignore[reportMissingImports]
    from torch_fidelity.metric_fid import fid_statistics_to_metric  # pyright: ignore[reportMissingImports]
    from torchmetrics.image.fid import _compute_fid  # pyright: ignore[reportMissingImports]

    x, y = features(n, d, seed=0), features(m, d, seed=1, shift=0.2)
    moments = [(rows.mean(0), np.cov(rows, rowvar=False)) for rows in (x, y)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = float(frechet_distance(*moments[0], *moments[1]))
        names = [{"mu": mu, "sigma": sigma} for mu, sigma in moments]
        fidelity = fid_statistics_to_metric(names[0], names[1], verbose=False)
    (m1, s1), (m2, s2) = [(torch.tensor(mu), torch.tensor(sigma)) for mu, sigma in moments]
    ours = frechet(x, y)
    assert ours == pytest.approx(clean, rel=1e-6)
    assert ours == pytest.approx(float(next(iter(fidelity.values()))), rel=1e-6)
    assert ours == pytest.approx(float(_compute_fid(m1, s1, m2, s2)), rel=1e-6)


def test_kid_equals_clean_fid_torch_fidelity_and_torchmetrics() -> None:
    from torch_fidelity.metric_kid import kernel_mmd  # pyright: ignore[reportMissingImports]
    from torchmetrics.image.kid import poly_mmd  # pyright: ignore[reportMissingImports]

    x, y = features(80, 48, seed=2), features(80, 48, seed=3, shift=0.1)
    ours = kid(x, y)
    assert ours == pytest.approx(float(poly_mmd(torch.tensor(x), torch.tensor(y))), rel=1e-9)
    assert ours == pytest.approx(float(kernel_mmd(x, y, kid_kernel="poly")), rel=1e-9)
    from cleanfid.fid import kernel_distance  # pyright: ignore[reportMissingImports]

    # One subset of all rows: clean-fid draws subsets and averages.
    assert ours == pytest.approx(float(kernel_distance(x, y, num_subsets=1, max_subset_size=80)), rel=1e-9)


def test_cmmd_equals_its_formula_written_out() -> None:
    x, y = (torch.tensor(features(40, 32, seed=s)) for s in (4, 5))
    x, y = (rows / rows.norm(dim=1, keepdim=True) for rows in (x, y))

    def mean(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.exp(-(torch.cdist(a, b) ** 2) / 200).mean())

    biased = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))  # the published V-statistic
    table = KernelTable.of([row[None].numpy() for row in (*x, *y)], kernel=gaussian)
    n = 40
    # From ours (pairs of a row with itself left out) to theirs: those pairs have kernel 1000 each.
    ours = table.distance(range(n), range(n, 2 * n))
    inner = [1000 * mean(z, z) for z in (x, y)]
    unbiased = sum((n * total - 1000) / (n - 1) for total in inner) - 2000 * mean(x, y)
    assert ours == pytest.approx(unbiased, rel=1e-9)
    assert biased > ours


def test_lpips_equals_lpips(tmp_path) -> None:
    import lpips  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    keys = {"features.0": "slice1.0", "features.3": "slice2.3", "features.6": "slice3.6", "features.8": "slice4.8",
            "features.10": "slice5.10"}  # fmt: skip
    state = theirs.state_dict()
    tensors = {f"{ours}.{part}": state[f"net.{name}.{part}"].contiguous()
               for ours, name in keys.items() for part in ("weight", "bias")}  # fmt: skip
    tensors |= {f"lin{i}.model.1.weight": state[f"lin{i}.model.1.weight"].contiguous() for i in range(5)}
    save_file(tensors, tmp_path / "lpips.safetensors")
    x, y = (torch.rand(3, 3, 96, 128, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in (1, 2))
    with torch.no_grad():
        want = theirs(x, y).flatten().numpy()
    np.testing.assert_allclose(lpips_curve(alexnet_lpips(tmp_path / "lpips.safetensors"), x, y), want, rtol=1e-6)


def test_inception_equals_torch_fidelitys_network_on_the_same_random_weights(tmp_path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # pyright: ignore[reportMissingImports]

    ours = InceptionFeatures()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in ours.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + (0.9 if "weight" in name else -0.1))
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(ours.state_dict() | classifier, tmp_path / "inception.pth")
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(tmp_path / "inception.pth")
    )
    x = torch.rand(2, 3, 299, 299, generator=generator)
    levels = (x * 255).round()
    with torch.no_grad():
        want, found = theirs(levels.to(torch.uint8))[0], ours((levels - 128) / 128)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


def test_i3d_equals_the_module_of_cd_fvd_on_the_same_random_weights() -> None:
    from cdfvd.third_party.i3d.pytorch_i3d import InceptionI3d  # pyright: ignore[reportMissingImports]

    ours = I3dLogits()
    theirs = InceptionI3d(400, in_channels=3)
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing == [] and unexpected == []
    theirs.eval()
    x = torch.rand(1, 3, 16, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        want, found = theirs(x), ours(x)
    torch.testing.assert_close(found, want.reshape(found.shape), rtol=1e-4, atol=1e-5)
