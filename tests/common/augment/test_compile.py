"""The torch path as one graph: compiled whole, never again over a hundred draws."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from common.augment import Augment
from common.augment.drawn import Look
from common.augment.pixels import develop
from common.blocks.batch import Batch
from common.data import EpochSeed, ImageBlock

ALL = Augment(
    flip=True, symmetries=True, rotate=20, zoom=1.2, zoom_least=0.8, translate=0.1, warp=0.2, elastic=0.03, blur=1.0,
    sharpen=1.0, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, grayscale=0.1, noise=0.1, salt_pepper=0.05,
    erase=0.3, size=24, min_scale=0.4,
)  # fmt: skip


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("shape", [(4, 32, 32, 3), (3, 90, 80, 3)])
def test_a_hundred_draws_are_one_graph_compiled_once(pipeline, fresh, shape):
    pipe = pipeline(ALL, blocks=(ImageBlock(),))
    kept = (shape[1], shape[2])
    look = pipe.look(kept, pipe.encoder.image_block)
    size = pipe.out_size(kept)

    def whole(pixels, ids, keys):
        return develop(pixels, pipe.complete(pipe.count(ids, keys, size), kept, True), look)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(whole, backend=counter, fullgraph=True, dynamic=False)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for epoch in range(100):
        ids = torch.arange(shape[0]) + 1000 * epoch
        keys = pipe.keys(EpochSeed(3, epoch), torch.device("cpu"))
        found = compiled(pixels, ids, keys)
        if epoch % 33 == 0:
            torch.testing.assert_close(found, whole(pixels, ids, keys), atol=0.02, rtol=0)
    assert counter.frame_count == 1


def test_the_pipeline_is_what_was_compiled(pipeline):
    pipe = pipeline(ALL, blocks=(ImageBlock(),))
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    keys = pipe.keys(EpochSeed(3, 5), torch.device("cpu"))
    drawn = pipe.complete(pipe.count(torch.arange(4), keys, (24, 24)), (32, 32), True)
    look = pipe.look((32, 32), pipe.encoder.image_block)
    assert isinstance(look, Look)
    out = pipe(Batch(x=pixels, ids=torch.arange(4)), EpochSeed(3, 5), True).x
    assert torch.equal(develop(pixels, drawn, look), out)
