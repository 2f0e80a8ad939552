from pathlib import Path

import pytest
import torch

from atari_bridge.training.checkpoints import load_module, save_tensors
from prefsearch.storage.weights import WeightsError, require_finite_weights


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def test_a_module_takes_its_own_weights_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, made, other = tmp_path / "network.safetensors", network(), network()
    save_tensors(path, made.state_dict())
    load_module(path, other)
    for name, weight in other.state_dict().items():
        assert torch.equal(weight, made.state_dict()[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.weight": None}, r"other weights than .*\(0\.weight; 1 missing, 0 too many\)"),
        ({"more": torch.ones(1)}, r"\(more; 0 missing, 1 too many\)"),
        ({"0.bias": torch.ones(2)}, r"0\.bias: found shape \[2\]; required: \[3\]"),
        ({"1.running_var": torch.full((3,), torch.inf)}, r"1\.running_var is not finite \(3 of"),
        ({"0.weight": torch.ones(3, 2).to(torch.complex64)}, r"0\.weight: found dtype .*complex64"),
        ({"0.weight": torch.ones(3, 2).to(torch.int8)}, r"0\.weight: found dtype torch\.int8"),
        ({"0.weight": torch.full((3, 2), torch.nan)}, r"0\.weight is not finite \(6 of .*1 of 7"),
    ],
)
def test_faulty_weights_are_named(changes: dict, message: str, tmp_path: Path) -> None:
    path, module = tmp_path / "network.safetensors", network()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    kept = {name: w for name, w in {**before, **changes}.items() if w is not None}
    save_tensors(path, kept)
    with pytest.raises(WeightsError, match=rf"network\.safetensors.*{message}"):
        load_module(path, module)
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, before[name])


def test_half_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_tensors(path, network().state_dict())
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match=r"network\.safetensors: cannot be read as safetensors"):
        load_module(path, network())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_one_byte_are_looked_at(dtype: torch.dtype) -> None:
    whole = torch.ones(3).to(dtype)
    require_finite_weights("m", [("whole", whole)], remedy="")
    broken = torch.tensor([1.0, torch.nan, 1.0]).to(dtype)
    with pytest.raises(WeightsError, match=r"the weight bad is not finite \(1 of its numbers"):
        require_finite_weights("m", [("whole", whole), ("bad", broken)], remedy="")
