"""FSSD on a PyTorch checkpoint: from a state dict to scores, without PyTorch.

python examples/torch_checkpoint.py
"""

# %%
import tempfile
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

import fssd_jax
from analysis import plots
from fssd_jax import torch_weights
from fssd_jax.data import load
from fssd_jax.detectors import fssd, msp
from fssd_jax.models import LeNet
from fssd_jax.train import train

EPOCHS = 3
digits = load("digits", "train")
images, photos = load("digits", "test").x, load("photo_patches", "test").x
mean, std = (0.3,), (0.33,)  # by which the images are normalised

# %% [markdown]
# ## A checkpoint
#
# You have one. So that this runs without a download, a LeNet is trained here and
# written as PyTorch would: weights transposed, under PyTorch's names. It stands for a
# network that PyTorch trained, and is none.

# %%
lenet = LeNet(mean=mean, std=std)
trained = train(
    *(lenet, digits.x, digits.y),
    num_classes=10,
    seed=0,
    epochs=EPOCHS,
    progress=False,
)
weights = jax.device_get(trained.variables["params"])
state_dict = {}
for ours, theirs in (
    *(("conv1", "conv1"), ("conv2", "conv2")),
    *(("fc1", "fc1"), ("logits", "fc2")),
):
    layer = weights[ours]
    layer = layer.get("Conv_0", layer.get("Dense_0", layer))
    kernel = layer["kernel"]
    if kernel.ndim == 4:
        kernel = kernel.transpose(3, 2, 0, 1)  # PyTorch: output, input, height, width
    elif ours == "fc1":  # PyTorch flattens channels first
        kernel = kernel.reshape(12, 12, 64, 128).transpose(3, 2, 0, 1).reshape(128, -1)
    else:
        kernel = kernel.T
    state_dict |= {f"{theirs}.weight": kernel, f"{theirs}.bias": layer["bias"]}
path = Path(tempfile.mkdtemp()) / "lenet.safetensors"
save_file({name: np.ascontiguousarray(a) for name, a in state_dict.items()}, path)
print({name: array.shape for name, array in state_dict.items()})

# %% [markdown]
# ## Load it
#
# `cifar_resnet34`, `resnet50`, `wrn40_2` and [others](
# ../docs/using.md#networks-and-files) go likewise; files of `torch.save` want PyTorch,
# `.safetensors` do not. The number of classes is read from the file, but no file tells
# how images were normalised: you do.

# %%
model, variables = torch_weights.load(path, "lenet", mean=mean, std=std)

# %% [markdown]
# ## Score
#
# As of any Linen network. Images stay in [0, 1]: the normalisation is in the model.

# %%
feature_fn = fssd_jax.make_feature_fn(model, layers=["fc1", "logits"])
logit_fn = fssd_jax.make_logit_fn(model)
noise = fssd_jax.uniform_noise(jax.random.key(1), 1000, images.shape[1:])
methods = {
    "fssd": (fssd.score, feature_fn, fssd.fit(feature_fn, variables, noise)),
    "msp": (msp.score, logit_fn, msp.fit()),
}
table = fssd_jax.compare(methods, variables, images, photos)
print(table)

# %% [markdown]
# The command does the same for folders of images, with more methods and with controls:
#
#     fssd score --weights resnet34.pth --model cifar_resnet34 \
#         --mean 0.4914 0.4822 0.4465 --std 0.2023 0.1994 0.2010 \
#         --in photos/test --ood photos/other
#
# ## Look at it

# %%
figure = plots.roc(table.scores, title="a LeNet of a file, digits and photographs")
figure.savefig("torch_checkpoint.png", dpi=200)
