"""Makes the files of this folder: two nets for digits, and what Google's converter and quantizer make of them.

    pip install litert-torch ai-edge-quantizer
    python tests/sources/graphs/make_graphs.py

TFLite files are read by tests of the package; nothing that tests install can write them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wheeltap.sources import digits

FOLDER = Path(__file__).parent
BATCH = 16
"""Examples that the graphs are of: that of the CNN, and of the quantized ones."""


def nets() -> dict[str, nn.Module]:
    """Not trained yet."""
    mlp = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    cnn = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip
    return {"mlp": mlp.eval(), "cnn": cnn.eval()}


def main() -> None:
    """Trains, and writes."""
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe
    from safetensors.torch import save_file

    data = digits.split()
    torch.manual_seed(0)
    for name, net in nets().items():
        optimizer = torch.optim.AdamW(net.train().parameters(), 3e-3)
        for _ in range(600):
            rows = torch.randint(0, len(data.train_inputs), (64,))
            loss = nn.functional.cross_entropy(net(data.train_inputs[rows]), data.train_targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.eval()
        held = {key: value.contiguous() for key, value in net.state_dict().items() if value.is_floating_point()}
        save_file(held, FOLDER / f"{name}.safetensors")
        path = str(FOLDER / f"{name}.tflite")
        litert_torch.convert(net, (data.train_inputs[:BATCH],)).export(path)
        calibration: Any = {
            "serving_default": [
                {"args_0": np.asarray(data.train_inputs[at : at + BATCH])} for at in range(0, 40 * BATCH, BATCH)
            ]
        }
        for kind, how in (("dynamic", recipe.dynamic_wi8_afp32()), ("static", recipe.static_wi8_ai8())):
            made = quantizer.Quantizer(path)
            made.load_quantization_recipe(how)
            result = made.quantize(made.calibrate(calibration)) if kind == "static" else made.quantize()
            result.export_model(str(FOLDER / f"{name}.{kind}.tflite"), overwrite=True)
        right = (net(data.test_inputs).argmax(1) == data.test_targets).float().mean()
        print(name, f"{float(right):.3f}")


if __name__ == "__main__":
    main()
