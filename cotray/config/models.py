"""Settings of everything that is trained: LeuSAM, LeuGAN, backbone, GraFR, HDLC."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cotray.config.base import Section


class TrainConfig(Section):
    """What every training shares."""

    epochs: int = Field(10, ge=1)
    """Passes over the training split."""
    max_steps: int | None = Field(None, ge=1)
    """Fewer passes (at least one) where `epochs` would take more steps than this: keeps `tiny` to minutes
    on large data sets. None = no limit."""
    batch_size: int = Field(32, ge=1)
    """Items per step over all workers together."""
    lr: float = Field(1e-3, gt=0)
    """Base learning rate of AdamW; cosine schedule with warm-up."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of all steps in which the rate rises from nothing to `lr`, before its cosine down."""
    weight_decay: float = Field(1e-2, ge=0)
    """AdamW weight decay."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    patience: int = Field(0, ge=0)
    """Stop after this many epochs without a better validation score; 0 = never."""
    smooth: int = Field(1, ge=1)
    """Epochs whose mean validation score says how good an epoch's weights are: its own and those before. More
    than 1 where scores jump while the rate is high, so that no lucky epoch is taken for the best one."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Moving average of the weights, which is validated and kept in place of the last ones; 0.99 remembers
    about a hundred steps, 0 = off."""
    classes: Literal["weight", "sample", "none"] = "weight"
    """How classes of different sizes get the same say: `weight` the loss, `sample` each as often (cells of
    the smaller one come several times an epoch), or `none`."""
    checkpoint_every: int = Field(1, ge=1)
    """Epochs between checkpoints: what a kill can cost."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of training steps: `bf16` is mixed precision (weights stay in fp32), `auto` is bf16 where it
    is the faster one, on GPUs that have it and, but for LeuSAM and LeuGAN, on CPUs with AMX or AVX512_BF16,
    fp32 else. Validation and prediction are fp32 always."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients make one step: as `batch_size` times this, in the memory of one batch. Where
    memory runs out, batches are cut in halves until they fit, and steps stay the same."""
    channels_last: bool = True
    """Keep images with their channels last in memory: faster convolutions on GPUs and CPUs."""
    compile: bool = False
    """Compile networks with torch.compile before training: minutes at the start, faster steps on GPUs."""


class BackboneTrainConfig(TrainConfig):
    """Training of the backbone, whose cells may be more than memory holds."""

    data: Literal["cached", "stream"] = "cached"
    """`cached`: all training cells lie decoded in memory (28 KB each at 96 px, 197 KB at 256 px). `stream`:
    for sets that would not fit. Ray Data reads and decodes them anew each epoch, a little ahead of training,
    so that memory does not grow with the data. That costs the CPU time of decoding in each epoch, and mixes
    less: pieces of 64 neighbouring cells come in a drawn order, and batches are drawn from `buffer`."""
    buffer: int = Field(1024, ge=1)
    """With `stream`: cells that each worker holds to draw its batches from. More mixes better and takes more
    memory."""

    @model_validator(mode="after")
    def _streamed(self) -> BackboneTrainConfig:
        if self.data == "stream" and self.classes == "sample":
            raise ValueError("train.classes=sample needs train.data=cached; classes=weight works with both")
        return self


class SegmentConfig(Section):
    """LeuSAM: Segment Anything fine-tuned on leukocyte masks; or one of its rivals."""

    model: Literal["leusam", "unet", "unetpp", "otsu"] = "leusam"
    """`unet` and `unetpp` (UNet++) learn from the same windows; `otsu` (and watershed) learns nothing."""
    variant: Literal["tiny", "vit_b", "vit_l", "vit_h"] = "tiny"
    """`tiny` is small enough to train whole (see `start`); the others start from your SAM checkpoint."""
    start: Literal["scratch", "shipped"] = "scratch"
    """What training of `tiny` starts from. `scratch`: random weights. `shipped`: the LeuSAM that comes with
    cotray, which has seen drawn cells only; it must be the network that these settings describe (sizes,
    window, masks as by default). Where the data set has too few masks (below 20) there is nothing to learn
    from but drawings, which it knows already: then it is used as it is, without any training. Worth about 200
    steps where there are masks; after 300 the two starts are alike on unseen images."""
    checkpoint: str | None = None
    """SAM checkpoint file for `vit_*`."""
    masks: Literal["single", "best_of_three"] = "single"
    """`single`: SAM's mask for an unambiguous prompt; `best_of_three`: three candidates, trained by SAM's
    rule (only the best one's loss counts), and the one of highest predicted IoU is taken."""
    lora_rank: int = Field(0, ge=0)
    """Rank of low-rank adapters on the attention of a `vit_*` encoder; 0 = the encoder stays as it is. With
    adapters its embeddings change with training, so they are not cached."""
    cache: bool = True
    """Compute the embeddings of a `vit_*` encoder once, before training, and keep them in the run."""
    turned_copies: int = Field(1, ge=1, le=8)
    """With cached embeddings: learn from this many turned and mirrored copies of each window (each is
    embedded and kept: C * T * T * 2 bytes, 2 MiB at 1024 px)."""
    image_size: int = Field(256, ge=64)
    """Side of the square LeuSAM sees (SAM's own is 1024)."""
    embed_dim: int = Field(96, ge=16)
    """Width of the `tiny` image encoder."""
    depth: int = Field(4, ge=1)
    """Blocks of the `tiny` image encoder."""
    heads: int = Field(4, ge=1)
    """Attention heads of the `tiny` image encoder."""
    prompt_dim: int = Field(64, ge=16)
    """Channels between encoder and decoder for `tiny` (SAM's own is 256)."""
    unet_width: int = Field(16, ge=4)
    """Filters of the first level of `unet` and `unetpp` (MONAI's own: 32)."""
    unet_stride: Literal[1, 2] = 2
    """How much `unet` and `unetpp` shrink the windows that they see, and their masks."""
    detail: int = Field(8, ge=0)
    """Channels of the fine path beside the `tiny` encoder (a multiple of 4); 0 = its patches alone."""
    drawn_prompts: bool = True
    """Draw the prompts of `tiny` as a coarse mask too, SAM's third kind of prompt: from scratch, their codes
    alone take thousands of steps to mean a place."""
    window: Literal["cell", "image"] = "cell"
    """`cell`: look at a window around each box; `image`: embed the whole image once for all its boxes."""
    context: float = Field(1.6, ge=1.0)
    """Side of the window over the longer side of the box, when `window` is `cell`."""
    phantom_cells: int = Field(400, ge=0)
    """Phantom cells to train on where the dataset has no masks."""
    jitter: float = Field(0.1, ge=0, lt=0.5)
    """How far training moves each side of a box prompt, as a share of the box."""
    points: float = Field(0.3, ge=0, le=1)
    """Share of training steps in which boxes come with one or two points, on the cell or beside it."""
    cell_size: int = Field(96, ge=32)
    """Side in pixels of the cut-out cells that later stages see."""
    cell_margin: float = Field(0.1, ge=0)
    """Black margin around the mask in the cut-out, as a share of its longer side."""
    train: TrainConfig = TrainConfig(epochs=8, max_steps=400, batch_size=8, lr=1e-3)
    """Training of LeuSAM."""

    @model_validator(mode="after")
    def _shapes(self) -> SegmentConfig:
        if self.image_size % 16:
            raise ValueError("segment.image_size must be a multiple of 16")
        if self.embed_dim % self.heads or self.prompt_dim % 8:
            raise ValueError(
                "segment.heads must divide segment.embed_dim, and segment.prompt_dim be a multiple of 8"
            )
        if self.detail % 4:
            raise ValueError("segment.detail must be a multiple of 4")
        if self.lora_rank and self.variant == "tiny":
            raise ValueError("segment.lora_rank adapts a vit_* encoder; that of tiny is trained whole")
        return self


class GanConfig(Section):
    """LeuGAN, Eq. 1-2: synthetic cells for the smaller class of the training split."""

    image_size: int = Field(64, ge=32)
    """Side of synthetic cells (paper: 256); a multiple of 16."""
    latent: int = Field(128, ge=1)
    """Length of z, drawn from (-1, 1)."""
    channels: int = Field(32, ge=16)
    """Feature maps after the dense layer (paper: 1024), halved at each of four steps up."""
    spectral_norm: bool = False
    """Spectral norm of the discriminator (not in the paper). Like the other extras, `diffaugment` and
    `train.ema`, it is off because it brought nothing where it was measured (docs/benchmarks.md)."""
    diffaugment: bool = False
    """Differentiable augmentation of real and synthetic cells (not in the paper)."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Adam beta1 of both networks."""
    use: Literal["never", "auto", "always"] = "never"
    """`never`: no cell is drawn, and classes get the same say by `train.classes` alone; on real cells that
    was at least as good (docs/benchmarks.md). `auto`: its cells are used if they look real (`min_precision`)
    and raise no alarm (of copies, or of drawing the same cells again and again); `always`: whatever they look
    like (paper)."""
    grid_every: int = Field(10, ge=1)
    """Epochs between grids of cells drawn from the same latents (and after the first and last): in MLflow,
    and as one strip over time in the report."""
    max_ratio: float = Field(1.0, ge=0)
    """Never more synthetic cells than this times the class' real ones."""
    min_precision: float = Field(0.3, ge=0, le=1)
    """With `use=auto`: the share of synthetic cells that must look like real ones. A generator that has not
    learned would teach the backbone nonsense."""
    train: TrainConfig = TrainConfig(
        epochs=400, max_steps=2000, batch_size=16, lr=5e-4, weight_decay=0.0, checkpoint_every=10
    )
    """Training of LeuGAN."""

    @model_validator(mode="after")
    def _multiple(self) -> GanConfig:
        if self.image_size % 16:
            raise ValueError("gan.image_size must be a multiple of 16")
        return self


class SmodConfig(Section):
    """SMod, Eq. 9: five spatial feature learning blocks."""

    filters: tuple[int, int, int, int, int] = (32, 64, 128, 256, 256)
    """Filters of the five blocks."""
    order: Literal["eq9", "alg1"] = "eq9"
    """`eq9`: conv-BN-ReLU-pool; `alg1`: pool-conv-BN (the paper has both)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout at the end of each block (paper: 0.2). Dropout before a batch norm shifts the variance it saw
    in training; with a few hundred cells that moves every answer to one side."""


OWN_BACKBONES = ("cotconet", "gmod", "smod")
"""Backbones that are cotray's; other names are looked for in timm."""


class AugmentConfig(Section):
    """What training does to each cell, anew at every step, on the device; black stays black."""

    flips: bool = True
    """Mirror, and turn by quarters: all eight symmetries."""
    rotate: float = Field(0.0, ge=0, le=180)
    """Turn by up to this many degrees, either way."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Shrink or grow by up to this share."""
    stain: float = Field(0.0, ge=0, lt=1)
    """Change gamma, brightness and saturation by up to this share, as another slide or another lamp might;
    0.15 is a usual choice. Off: within a data set it costs accuracy. For slides of another laboratory take
    0.3, with `hue` 0.05: without them calls there were hardly better than guesses (docs/benchmarks.md)."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Turn the hue by up to this share of the colour circle."""


class BackboneConfig(Section):
    """GMod + SMod (Eq. 3-9), trained end to end with a linear head; or any model of timm in their place."""

    name: str = "smod"
    """Which backbone: `smod` (the CNN alone), `cotconet` (the transformer GMod before it, as published;
    presets `small` and `paper`), `gmod`, or a model of timm by its name (`resnet18`, `vgg16`,
    `vit_base_patch32_224`, `efficientnet_b1`, ...). At `tiny`'s size GMod more than doubled the time and
    added nothing that could be told from chance (docs/benchmarks.md)."""
    pretrained: str | None = None
    """Weights to start from, a file on disk or at a URI: a timm model's (.pth, .safetensors), or
    `train_backbone/backbone.safetensors` of another run. None = from nothing."""
    image_size: int = Field(96, ge=32)
    """Side of the input; for cotray's own a multiple of 32 and of `patch`."""
    patch: int = Field(8, ge=2)
    """GMod's patch side p; token width is p*p*3 (paper: 16)."""
    layers: int = Field(2, ge=1)
    """GMod's transformer layers L."""
    heads: int = Field(4, ge=1)
    """GMod's attention heads H; divides p*p*3."""
    mlp_ratio: float = Field(2.0, gt=0)
    """Hidden width of GMod's MLP over the token width (paper: 4)."""
    gmod_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the transformer (`paper`: 0.1); on a CPU it costs a fifth of the training time."""
    skip: bool = True
    """Feed SMod the image beside GMod's map (`cotconet`: six channels); False = GMod's map alone, as
    printed."""
    gmod_scale: float = Field(0.1, ge=0)
    """With `skip`, what GMod's map is multiplied with at first (weights of its last norm, learned from there;
    `paper`: 1). Before it has learned anything, that map is noise as loud as the image."""
    smod: SmodConfig = SmodConfig()
    """The convolutional half."""
    label_smoothing: float = Field(0.05, ge=0, lt=0.5)
    """Label smoothing of the cross-entropy."""
    augment: AugmentConfig = AugmentConfig()
    """Mirrors, turns, zoom and stain jitter on the device."""
    train: BackboneTrainConfig = BackboneTrainConfig(
        epochs=75, max_steps=3150, batch_size=32, lr=1e-3, smooth=5
    )
    """Training of the backbone. `train.patience` is off, and five epochs judge one: the validation loss may
    jump for thirty epochs while the rate is high, and settle only as it falls."""

    @model_validator(mode="after")
    def _shapes(self) -> BackboneConfig:
        if self.name not in OWN_BACKBONES:
            return self  # timm says itself which sides it takes
        if self.image_size % 32 or self.image_size % self.patch:
            raise ValueError("backbone.image_size must be a multiple of 32 and of backbone.patch")
        if (self.patch * self.patch * 3) % self.heads:
            raise ValueError("backbone.heads must divide patch*patch*3")
        return self


class GrafrConfig(Section):
    """GraFR, Eq. 10-13: reconstruct each cell's features from its neighbours in a bank."""

    k: int | None = Field(10, ge=1)
    """The k most similar training cells (Eq. 12's aim); None = all of them (Eq. 13 as printed)."""
    mode: Literal["concat", "replace"] = "concat"
    """`concat`: [x, x_hat]; `replace`: x_hat alone."""
    eps: float = Field(1e-6, gt=0)
    """Added to distances so that similarity stays finite."""
    index: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """How neighbours are found. `exact` looks at every bank cell; `ivf` at those of the nearest lists (quick
    to build); `hnsw` walks a graph (slow to build, and built again at each start). The approximate ones only
    propose cells; distances and order are always exact. `auto`: `exact` up to `exact_up_to`, then `ivf`."""
    exact_up_to: int = Field(100_000, ge=1)
    """Bank cells up to which `auto` looks at all of them."""
    coreset: int | None = Field(None, ge=2)
    """Keep at most this many training cells as the bank: of each class its share, the cells nearest to the
    means of k-means. Bounds what is served; None = all training cells."""


class HdlcConfig(Section):
    """HDLC: one convolution, a linear map back to a vector, six dense layers, sigmoid."""

    filters: int = Field(128, ge=1)
    """Filters of the 1-D convolution."""
    hidden: tuple[int, int, int, int, int] = (256, 128, 64, 32, 16)
    """Widths of the first five dense layers; the sixth gives the logit."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout between dense layers."""
    alpha: float = Field(0.1, gt=0, lt=0.5)
    """A set of classes goes with each answer: for at least 1 - alpha of new groups' images it holds the true
    class. It holds both where the classifier cannot tell: refer that image to a hematologist. Needs at least
    1 / alpha - 1 validation groups; with fewer, every image is referred."""
    coverage: Literal["overall", "per_class"] = "overall"
    """What 1 - alpha is promised for: all images together, or normal and malignant ones each (then each class
    needs that many validation groups)."""
    train: TrainConfig = TrainConfig(epochs=40, max_steps=2000, batch_size=64, lr=1e-3, patience=10)
    """Training of HDLC."""
