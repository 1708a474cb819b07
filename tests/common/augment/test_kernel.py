"""The kernel against the torch reference: through Triton's interpreter in a process of its own, and on a GPU.

The interpreter is chosen by a variable that must be there before Triton is imported, and the rest of the suite may
compile: so this file run as a script makes every case and writes what came of it, once for all tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common.augment import Augment, BatchPipeline, geometry, kernel, pixels
from common.augment.drawn import Drawn, Look
from common.blocks.sample import SampleEncoder
from common.data import EpochSeed, ImageBlock

ROOT = Path(__file__).resolve().parents[3]
SOURCE, SIZE = (23, 21), (16, 20)  # an odd number of bytes a sample: the second begins amid a word
COUNT = 2
STEP = 1 / 255 / geometry.EXACT
DIFFER = 0.01
"""The share of pixels where float32 places, 1e-6 of the side apart, may round to neighbouring steps (seen: 0.002)."""
EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half the distance of neighbouring numbers near 1: two roundings of nearly the same value differ by twice that."""
EYE = torch.eye(3, dtype=torch.float64)


def images(height, width, channels=3, count=COUNT):
    numbers = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=numbers)


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def both(*rows):
    """One matrix for every sample."""
    return torch.tensor(rows, dtype=torch.float64).expand(COUNT, 3, 3)


def edges():
    """Shares of salt and pepper at an edge: as large as the number of a pixel, or half above an even one."""
    first, second = pixels.halves(WORD ^ pixels.SALT, 100).sort(dim=1).values
    return torch.stack([first[10], second[second % 2 == 0][10] + 0.5]).to(torch.float32) / pixels.HALVES


WORD = torch.tensor([5, 2**32 - 3])
SHARES = edges()


def parts(*names):
    """Parameters of the named parts; each leaves nothing of another unseen."""
    every = {
        "matrix": EYE + 0.3 * uniform(COUNT, 3, 3),
        "field": (0.06 * uniform(COUNT, 2, 7, 7, seed=1)).to(torch.float32),
        "colour": torch.eye(3, 4, dtype=torch.float64) + 0.2 * uniform(COUNT, 3, 4, seed=2),
        "noise": torch.tensor([0.1, 0.02]),
        "salt_pepper": SHARES,
        "word": WORD,
        "erase": torch.tensor([[2, 3, 9, 20], [0, 0, 0, 0]], dtype=torch.int32),
    }
    return Drawn(**{name: every[name] for name in names})


ALL = ("matrix", "field", "colour", "noise", "salt_pepper", "word", "erase")
FAR = both([1.5, 0.9, 0.8], [-0.7, 2.1, -1.2], [0.05, -0.1, 1.0])  # looks beyond the image on all sides
SHRINKING = torch.stack([EYE * torch.tensor([2.63, 2.91, 1.0]), EYE * torch.tensor([1.13, 0.87, 1.0])])
KEPT = torch.tensor([[17, 13], [9, 21]], dtype=torch.int32)
THIN = torch.tensor([[1, 13], [23, 1]], dtype=torch.int32)
UNIT = ((0.0,) * 3, (1.0,) * 3)
STATS = ((0.48, 0.45, 0.4), (0.22, 0.23, 0.25))
GREY = ((0.5,), (0.25,))


def case(drawn, size=SIZE, stats=UNIT, *, source=SOURCE, channels=3, offset=0, padding="reflection", taps=1, **how):
    """What `kernel.develop` is given; ``offset`` samples are cut off in front."""
    look = Look(size, *stats, padding, taps)
    return {"images": images(*source, channels, COUNT + offset)[offset:], "drawn": drawn, "look": look, **how}


WHOLE = {  # name: matrix, from places in the output to places in the source
    "identity": both([1.0, 0, 0], [0, 1, 0], [0, 0, 1]),
    "flip": both([-1.0, 0, 0], [0, 1, 0], [0, 0, 1]),
    "flip vertical": both([1.0, 0, 0], [0, -1, 0], [0, 0, 1]),
    "half turn": both([-1.0, 0, 0], [0, -1, 0], [0, 0, 1]),
    "quarter turn": both([0, -1.0, 0], [1, 0, 0], [0, 0, 1]),
    "other quarter turn": both([0, 1.0, 0], [-1, 0, 0], [0, 0, 1]),
    "transpose": both([0, 1.0, 0], [1, 0, 0], [0, 0, 1]),
}
EXACT = {name: case(Drawn(matrix=m), (20, 20), STATS, source=(20, 20)) for name, m in WHOLE.items()}
EXACT |= {
    "nothing": case(Drawn(), SOURCE, STATS),
    "nothing, grey": case(Drawn(), SOURCE, GREY, channels=1),
    "nothing, ragged": case(Drawn(), SOURCE, STATS, extents=KEPT),
    "flip of a skewed view": case(Drawn(matrix=WHOLE["flip"]), SOURCE, STATS, offset=1),
    "flip of grey": case(Drawn(matrix=WHOLE["flip"]), SOURCE, GREY, channels=1),
    "flip, three taps": case(Drawn(matrix=WHOLE["flip"]), SOURCE, STATS, taps=3),
    "flip, many tiles": case(Drawn(matrix=WHOLE["flip"]), (70, 45), STATS, source=(70, 45)),
    "salt_pepper": case(parts("salt_pepper", "word"), SOURCE, STATS),
    "erase": case(parts("erase"), SOURCE, STATS),
}
CLOSE = {name: case(parts(name, "word"), SOURCE) for name in ("matrix", "field", "colour", "noise")}
CLOSE |= {
    "matrix and field": case(parts("matrix", "field")),
    "all": case(parts(*ALL), stats=STATS),
    "all, two taps": case(parts(*ALL), stats=STATS, taps=2),
    "all, grey": case(parts(*ALL), stats=GREY, channels=1),
    "all, planes": case(parts(*ALL), stats=STATS, channels_last=False),
    "many tiles": case(parts("matrix"), (70, 45)),
    "narrow": case(parts("matrix"), (40, 3)),
    "skewed view": case(parts("matrix"), offset=3),
    "one row": case(Drawn(matrix=FAR), source=(1, 9)),
    "one pixel of grey": case(Drawn(matrix=FAR), stats=GREY, source=(1, 1), channels=1),
    "all but the last part": case(parts("matrix", "colour"), stats=STATS, extents=KEPT),
}
for pad in ("reflection", "border", "zeros"):
    CLOSE |= {
        f"{pad}": case(Drawn(matrix=FAR), padding=pad),
        f"{pad}, kept": case(Drawn(matrix=FAR), padding=pad, extents=KEPT),
        f"{pad}, thin": case(Drawn(matrix=FAR), padding=pad, extents=THIN),
        f"{pad}, grey, thin": case(Drawn(matrix=FAR), stats=GREY, channels=1, padding=pad, extents=THIN),
        f"{pad}, two taps": case(Drawn(matrix=SHRINKING), padding=pad, taps=2),
        f"{pad}, three taps, kept": case(Drawn(matrix=SHRINKING @ FAR), padding=pad, taps=3, extents=KEPT),
    }
HALF = {
    f"{kind}, {name}": case(parts(*ALL), size, STATS, source=SOURCE, dtype=getattr(torch, kind), channels_last=last)
    for kind in EPS
    for name, size, last in (("pairs", SIZE, True), ("odd", (16, 19), True), ("planes", SIZE, False))
}
CASES = EXACT | CLOSE | HALF


def developed(given, device):
    """What the kernel makes of a case, and what the reference makes of it."""
    given = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in given.items()}
    given["drawn"] = given["drawn"].map(lambda tensor: tensor.to(device))
    found = kernel.develop(**given)
    return found, pixels.develop(**{key: value for key, value in given.items() if key != "channels_last"})


def main(out):
    silent = "triton" not in sys.modules
    pairs = {name: developed(given, "cpu") for name, given in CASES.items()}
    arrays = {f"{name}/{k}": both[k].float().numpy() for name, both in pairs.items() for k in range(2)}
    arrays |= {
        f"{name}/layout": np.array([both[0].dtype == both[1].dtype, *both[0].stride()]) for name, both in pairs.items()
    }
    np.savez(out, silent=silent, **arrays)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What came of every case in the interpreter."""
    pytest.importorskip("triton", reason="this torch comes without Triton")
    out = tmp_path_factory.mktemp("kernel") / "made.npz"
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, __file__, str(out)], env=env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-4000:]
    with np.load(out) as arrays:
        return dict(arrays)


def check(name, found, wanted):
    """Asserts that a case came out as its kind must."""
    assert found.shape == wanted.shape
    if name in EXACT:
        assert np.array_equal(found, wanted)
        return
    off = np.abs(found - wanted)
    std = min(CASES[name]["look"].std)
    step = 1.2 * STEP / std if CASES[name]["drawn"].moves else 0.0  # colours scale a step by up to 1.2
    if name in HALF:
        eps = EPS[name.split(",")[0]]
        assert (off <= 2.5 * eps * np.maximum(np.abs(wanted), 0.01) + step).all()
    else:
        assert off.max() <= 1.5 * step + 2e-6 / std
        assert (off > 2e-6 / std).mean() <= DIFFER


@pytest.mark.parametrize("name", list(CASES))
def test_the_kernel_makes_what_the_reference_makes(made, name):
    check(name, made[f"{name}/0"], made[f"{name}/1"])


@pytest.mark.parametrize("name", list(CASES))
def test_the_result_has_the_type_and_the_layout_that_were_asked_for(made, name):
    (_, channels, height, width), (same, *strides) = made[f"{name}/0"].shape, made[f"{name}/layout"]
    assert same == 1
    last, planes = (1, width * channels, channels), (height * width, width, 1)
    wanted = last if channels > 1 and CASES[name].get("channels_last", True) else planes
    assert (strides[0], strides[2], strides[3]) == (height * width * channels, *wanted[1:])
    assert channels == 1 or strides[1] == wanted[0]


@pytest.mark.parametrize("name", ["matrix", "field", "colour", "noise"])
def test_every_part_changes_the_image(made, name):
    """Two paths that did nothing would agree, too."""
    assert np.abs(made[f"{name}/1"] - images(*SOURCE).permute(0, 3, 1, 2).numpy() / 255).mean() > 0.01


def test_taps_lie_apart_only_where_the_image_shrinks(made):
    look = CASES["reflection, two taps"]["look"]
    assert geometry.spread(SHRINKING, SOURCE, look.size).tolist() == [1.0, 0.0]
    one = pixels.develop(images(*SOURCE), Drawn(matrix=SHRINKING), Look(SIZE, *UNIT)).numpy()
    found = made["reflection, two taps/0"]
    assert np.abs(found[0] - one[0]).mean() > 0.05
    assert np.abs(found[1] - one[1]).max() <= 1.5 * STEP


def test_triton_is_imported_for_a_kernel_alone(made):
    assert made["silent"]


def test_the_kernel_leaves_images_on_the_cpu_to_others():
    assert not kernel.serves(images(*SOURCE), Drawn())


# ---------------------------------------------------------------- with a GPU


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CHAIN = Augment(
    flip=True, rotate=20, zoom=1.3, warp=0.2, translate=0.1, elastic=0.02, brightness=0.2, contrast=0.2, hue=0.1, noise=0.1,
    salt_pepper=0.02, erase=0.2, p_affine=1.0,
)  # fmt: skip


def gpu_pipeline(transform=CHAIN):
    return BatchPipeline(SampleEncoder((ImageBlock("RGB", *STATS),), 1, ()), (transform,))


@pytest.fixture
def no_waiting():
    """Torch raises where the host waits for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def drawn_batch():
    """One batch on the device, and its parameters in epoch after epoch."""
    pipe, batch = gpu_pipeline(), images(64, 64, count=16).cuda()
    ids, block = torch.arange(16).cuda(), ImageBlock("RGB", *STATS)

    def draw(epoch):
        return pipe.draw(ids, (64, 64), EpochSeed(0, epoch), True)

    kernel.develop(batch, draw(0), pipe.look((64, 64), block))  # compiled
    return batch, draw, pipe.look((64, 64), block)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("name", list(CASES))
def test_on_a_gpu_the_kernel_makes_what_the_reference_makes(name):
    found, wanted = developed(CASES[name], "cuda")
    assert found.dtype == wanted.dtype
    check(name, found.float().cpu().numpy(), wanted.float().cpu().numpy())


@pytest.mark.gpu
@gpu
def test_on_a_gpu_the_kernel_serves_what_it_can():
    batch = images(*SOURCE).cuda()
    assert kernel.serves(batch, parts("colour"))
    assert not kernel.serves(batch, Drawn(blur=torch.ones(COUNT, device="cuda")))
    assert not kernel.serves(batch, Drawn(sharpen=torch.ones(COUNT, device="cuda")))
    assert not kernel.serves(batch.float(), Drawn())
    assert not kernel.serves(batch[:, :, :1], Drawn())


@pytest.mark.gpu
@gpu
def test_on_a_gpu_the_host_never_waits(drawn_batch, request):
    batch, draw, look = drawn_batch
    drawn = draw(1)
    request.getfixturevalue("no_waiting")
    kernel.develop(batch, drawn, look)


@pytest.mark.gpu
@gpu
def test_on_a_gpu_a_recorded_launch_makes_what_its_parameters_say(drawn_batch):
    batch, draw, look = drawn_batch
    drawn = draw(1)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        out = kernel.develop(batch, drawn, look)
    other = draw(2)
    for name in ("matrix", "field", "colour", "noise", "salt_pepper", "word", "erase"):
        getattr(drawn, name).copy_(getattr(other, name))
    recorded.replay()
    assert torch.equal(out, kernel.develop(batch, other, look))


@pytest.mark.gpu
@gpu
def test_on_a_gpu_another_draw_compiles_nothing(drawn_batch):
    batch, draw, look = drawn_batch
    compiled = kernel._kernel().device_caches[torch.cuda.current_device()][0]
    before = len(compiled)
    for epoch in range(100):
        drawn, count = draw(epoch), 16 - epoch % 4
        kernel.develop(batch[-count:], drawn.rows(slice(16 - count, 16)), look)
    assert len(compiled) == before


@pytest.mark.gpu
@gpu
def test_on_a_gpu_padded_batches_of_every_size_share_a_kernel():
    compiled, before = kernel._kernel().device_caches[torch.cuda.current_device()][0], None
    for side in (23, 32, 48, 2):
        given = case(parts("matrix"), source=(side, side), extents=torch.full((COUNT, 2), side, dtype=torch.int32))
        developed(given, "cuda")
        before = before or len(compiled)
    assert len(compiled) == before


@pytest.mark.gpu
@gpu
def test_on_a_gpu_the_pipeline_chooses_the_kernel(monkeypatch):
    called, real = [], kernel.develop
    monkeypatch.setattr(kernel, "develop", lambda *given, **how: called.append(1) or real(*given, **how))
    pipe, batch = gpu_pipeline(), images(64, 64).cuda()
    block = pipe.encoder.image_block
    drawn = pipe.draw(torch.arange(COUNT).cuda(), (64, 64), EpochSeed(), True)
    found = pipe.pixels(batch, drawn, None, block)
    assert called
    wanted = pixels.develop(batch, drawn, pipe.look((64, 64), block))
    assert (found - wanted).abs().mean().item() <= STEP
    pipe.dtype = torch.bfloat16
    half = pipe.pixels(batch, drawn, None, block)
    assert half.dtype == torch.bfloat16
    assert (half - found).abs().max().item() < 0.02


if __name__ == "__main__":
    main(sys.argv[1])
