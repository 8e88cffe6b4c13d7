"""Results of verifications for the pages' tests, worded as `sam-parity` words them."""

import io
import math

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from sam_deploy.parity.judge import accuracy_figures, batch_figures, output_figures, reasons
from sam_deploy.parity_report import Accuracy, BatchParity, OutputParity, ParityReport
from sam_deploy.recipe import DEFAULT_TOLERANCES
from sam_deploy.verification.result import (
    ArtefactResult,
    Check,
    Guess,
    Histogram,
    Latency,
    LayerError,
    LayersReport,
    ParityResult,
    Skipped,
    Suggestion,
    WorstSample,
)

FP16 = DEFAULT_TOLERANCES["fp16"]
HOSTILE = [
    "<script>alert(1)</script>",
    "]]>",
    "a\x00\x08\x1b[31m\x7f\ufffe\udc80b",
    "two\nlines\r\nand\tmore",
    "a | b || c \\| d",
    "`code` ```",
    "\"><img src=x onerror='alert(1)'>",
    "<!-- --> &amp; &#60;b&#62; ${title} $main %s {0}",
    "[a](javascript:alert(1)) **b** _c_ @all #1 $x$",
    "# heading",
    "1. item",
    "- item",
    "\u202egnp.exe",
    "",
    "a" * 300,
]


def thumbnail(seed, size=32):
    """A PNG of `size` x `size` pixels."""
    noise = np.random.default_rng(seed).integers(60, 200, (8, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def output(name="logits", **figures):
    good = {"relative_rms": 4.1e-4, "max_error": 1.2e-3, "cosine": 0.9999999}
    return OutputParity(name=name, **{**good, **figures})


CLASSES = {"top1_agreement": 0.994, "flips": 3, "flip_margin_mean": 0.02, "flip_margin_max": 0.051}
ACCURACY = Accuracy(
    samples=500,
    top1=81.0,
    reference_top1=81.2,
    top1_drop=0.2,
    top1_interval=(-0.41, 0.8),
    top5=95.6,
    reference_top5=95.6,
    top5_drop=0.0,
    top5_interval=(-0.38, 0.38),
)
SLOTS = {8: [4e-4 + 3e-5 * slot for slot in range(8)], 64: [4e-4] * 63 + [8e-4]}
BATCHES = [
    BatchParity(size=size, slots_rms=slots, neighbours_rms=1e-6) for size, slots in SLOTS.items()
]


def artefact(
    outputs=None, *, accuracy=None, batches=(), name="model.onnx", backend="onnxruntime-cpu",
    tolerances=FP16, **more,
):  # fmt: skip
    """An artefact that was compared, with the reasons that `sam_deploy.parity` gives."""
    outputs = [output(**CLASSES)] if outputs is None else outputs
    failures = [
        *(reason for each in outputs for reason in reasons(output_figures(each, tolerances))),
        *(reasons(accuracy_figures(accuracy, tolerances)) if accuracy else []),
        *(reason for batch in batches for reason in reasons(batch_figures(batch, tolerances))),
    ]
    parity = ParityReport(
        artefact=name,
        backend=backend,
        data="folder",
        samples=500,
        data_sha256="9f" * 32,
        tolerances=tolerances,
        outputs=outputs,
        accuracy=accuracy,
        batches=list(batches),
        failures=failures,
    )
    return ArtefactResult(artefact=name, backend=backend, parity=parity, failures=failures, **more)


def histogram():
    edges = [10 ** (-6 + n / 4) for n in range(21)]
    counts = [0] * 6 + [4, 31, 90, 160, 121, 62, 20, 9, 2, 0, 0, 1, 0, 0]
    return Histogram(edges=edges, counts=counts)


def guesses(first, score):
    names = ["tabby, tabby cat", "tiger cat", "Egyptian cat", "lynx, catamount", "Persian cat"]
    order = names[first:] + names[:first]
    scores = [score, (1 - score) * 0.7, (1 - score) * 0.2, (1 - score) * 0.07, (1 - score) * 0.03]
    return [
        Guess(class_index=281 + names.index(name), name=name, score=score)
        for name, score in zip(order, scores, strict=True)
    ]


def worst():
    return [
        WorstSample(
            sample="val/n02123045/ILSVRC2012_val_00012345.JPEG",
            error=0.034,
            label="tiger cat",
            reference=guesses(0, 0.44),
            artefact=guesses(1, 0.47),
            thumbnail=thumbnail(1, 160),
        ),
        WorstSample(
            sample="val/n02123045/small.png",
            error=0.021,
            label="tabby, tabby cat",
            reference=guesses(0, 0.91),
            artefact=guesses(0, 0.88),
            thumbnail=thumbnail(2, 32),
        ),
        WorstSample(sample="row 17 of samples.npz", error=0.0042),
    ]


CHECKS = [
    Check(name="files", passed=True, detail="7 files are as the manifest says"),
    Check(name="weights", passed=True, detail="the checkpoint's hash is the manifest's"),
    Check(name="graph", passed=True, detail="412 nodes, opset 20, none outside the written spec"),
    Check(
        name="calibration",
        passed=None,
        detail="the calibration samples are not here, so it could not be seen whether any of them "
        "is among those that were judged",
    ),
]
SKIPPED = [
    Skipped(
        artefact="model.tensorrt-rtx.plan",
        backend="tensorrt-rtx",
        reason="no NVIDIA GPU: the plan is for compute capability 8.9",
    )
]


def result(artefacts=(), checks=CHECKS, skipped=SKIPPED, **more):
    failed = any(check.passed is False for check in checks)
    failed |= not artefacts or any(artefact.failures for artefact in artefacts)
    facts = {
        "bundle": "engines/smt_t-fp16-224",
        "name": "smt_t-fp16-224",
        "model": "smt_t",
        "precision": "fp16",
        "weights_sha256": "3b" * 32,
        "data": "folder val/, 500 images",
        "samples": 500,
        "labelled": True,
        "tolerances": FP16,
    }
    return ParityResult(
        passed=not failed,
        checks=list(checks),
        artefacts=list(artefacts),
        skipped=list(skipped),
        **{**facts, **more},
    )


def passing():
    found = artefact(accuracy=ACCURACY, batches=BATCHES, histogram=histogram(), worst=worst())
    return result([found])


def failing():
    """Two tolerances, the drop, a slot and a check; beside it an artefact that passed."""
    drop = {"top1": 79.1, "top1_drop": 2.1, "top1_interval": (0.7, 3.5)}
    accuracy = Accuracy(samples=500, reference_top1=81.2, **drop)
    slots = [4e-4] * 8
    slots[5] = 0.21
    batches = [*BATCHES[1:], BatchParity(size=8, slots_rms=slots, neighbours_rms=0.08)]
    outputs = [output(relative_rms=0.041, cosine=0.99917, **{**CLASSES, "flips": 21})]
    bad = artefact(
        outputs, accuracy=accuracy, batches=batches, histogram=histogram(), worst=worst(),
        name="model.tensorrt.plan", backend="tensorrt",
    )  # fmt: skip
    check = Check(name="nodes", passed=False, detail="431 ONNX nodes, the receipt has 412")
    good = artefact(accuracy=ACCURACY, histogram=histogram())
    notes = ["3 of 503 images were left out: broken.jpg is cut short"]
    return result([good, bad], [*CHECKS, check], notes=notes, layers=layers(24))


def void():
    reason = "parity of model.onnx: it does not run: [ONNXRuntimeError] : 1 : FAIL\n  at Conv_17"
    gone = ArtefactResult(
        artefact="model.onnx", backend="onnxruntime-cpu", parity=None, failures=[reason]
    )
    return result([gone])


def backbone():
    """Feature maps and a mask, unlabelled, and one figure that is no number."""
    outputs = [output(f"stage{n}", relative_rms=1e-4 * n) for n in range(1, 5)]
    outputs.append(OutputParity(name="mask", equal_elements=0.9991))
    outputs.append(output("depth", max_error=math.nan))
    return result([artefact(outputs, histogram=histogram())], labelled=False, skipped=[])


def nothing_ran():
    return result([], CHECKS[-1:])


def layers(count=250):
    """`count` modules in groups of five, the error jumping in the middle; two not measurable."""
    jump = count // 2 // 5
    found = [
        LayerError(
            module=f"block{1 + n // 70}.{n // 5}.attn.proj{n % 5}",
            kind="Conv2d" if n % 2 else "Linear",
            group=f"block{1 + n // 70}.{n // 5}.attn",
            relative_rms=2e-4 * 1.004**n * (1 + 0.4 * math.sin(n)) * (30 if n // 5 >= jump else 1),
        )
        for n in range(count)
    ]
    for place, value in ((3, 0.0), (count - 2, math.inf)):
        found[place] = LayerError(
            module="exact" if value == 0 else "overflowed",
            kind="LayerNorm",
            group=found[place].group,
            relative_rms=value,
        )
    group = found[jump * 5].group
    return LayersReport(
        artefact="model.onnx",
        backend="onnxruntime-cpu",
        samples=16,
        layers=found,
        jump=group,
        suggestions=[
            Suggestion(
                group=group,
                growth=28.4,
                relative_rms=0.0091,
                lines=f'[[islands]]\nmatch = "{group}"\nreason = "the error jumps there"\n',
            )
        ],
        unmatched=[f"block1.{n}.norm1" for n in range(12)],
    )


def with_layers():
    latency = Latency(eager_ms=41.2, bundle_ms=18.7, ratio=2.2)
    return result([artefact(accuracy=ACCURACY)], layers=layers(), latency=latency)


def hostile():
    """Every string that comes from files or users, and every kind of trouble, at once."""
    found = []
    for number, text in enumerate(HOSTILE):
        guess = [Guess(class_index=number, name=text, score=math.nan)]
        bad = WorstSample(sample=text, error=0.1, label=text, reference=guess, artefact=[])
        made = artefact(
            [output(text, relative_rms=0.5)],
            batches=[BatchParity(size=1, slots_rms=[math.nan], neighbours_rms=math.inf)],
            name=text,
            backend=text,
            worst=[bad] * 5,
        )
        found.append(made)
        gone = ArtefactResult(artefact=text, backend=text, parity=None, failures=[text])
        found.append(gone)
    verdicts = (True, False, None)
    group = HOSTILE[0]
    bad_layers = LayersReport(
        artefact=group,
        backend=group,
        samples=1,
        layers=[LayerError(module=t, kind=t, group=t, relative_rms=0.1) for t in HOSTILE],
        jump=group,
        suggestions=[Suggestion(group=t, growth=2, relative_rms=1, lines=t) for t in HOSTILE],
        unmatched=HOSTILE,
        notes=HOSTILE,
    )
    return result(
        found,
        [Check(name=t, passed=p, detail=t) for t in HOSTILE for p in verdicts],
        [Skipped(artefact=t, backend=t, reason=t) for t in HOSTILE],
        notes=HOSTILE,
        layers=bad_layers,
        **dict.fromkeys(("bundle", "name", "model", "data"), group),
    )


EXAMPLES = {
    each.__name__: each
    for each in (passing, failing, void, backbone, nothing_ran, with_layers, hostile)
}

texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30))
figures = st.floats(0, 1) | st.sampled_from([math.nan, math.inf])
_batches = st.builds(
    BatchParity,
    size=st.integers(1, 64),
    slots_rms=st.lists(figures, min_size=1, max_size=8),
    neighbours_rms=figures,
)
_artefacts = st.builds(
    artefact,
    st.lists(st.builds(output, texts, relative_rms=figures, cosine=figures), max_size=3),
    accuracy=st.none() | st.just(ACCURACY),
    batches=st.lists(_batches, max_size=2),
    name=texts,
    backend=texts,
)
_void = st.builds(
    ArtefactResult,
    artefact=texts,
    backend=texts,
    parity=st.none(),
    failures=st.lists(texts, min_size=1, max_size=3),
)
results = st.builds(
    result,
    st.lists(_artefacts | _void, max_size=3),
    st.lists(
        st.builds(Check, name=texts, passed=st.none() | st.booleans(), detail=texts), max_size=4
    ),
    st.lists(st.builds(Skipped, artefact=texts, backend=texts, reason=texts), max_size=2),
    name=texts,
    data=texts,
    notes=st.lists(texts, max_size=2),
)
