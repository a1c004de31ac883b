"""What captioned subsets cost, against what people use today, in one run.

    pip install pycocotools        # the baseline of `query`; not a dependency
    python benchmarks/data.py [query build load write memory stream] [--scratch /tmp/hfdk-bench] [--out benchmarks/results/data.json]

Each measurement is a fresh process. CPU seconds are user and system time of the whole process, imports included; `private` is the
peak of its anonymous memory (what the process has for itself), `rss` of all resident pages, pages of mapped files included. The
synthetic pair (coco_pair.py) has train2014's size; pictures are JPEGs of random blocks.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ASKED = ["dog", "frisbee"]
REPEATS = 3


def memory(name: str) -> float:
    """MB: RssAnon, of anonymous memory now; VmHWM, the peak of all resident pages. (getrusage's peak is the parent's, if larger.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measured(work: Callable[[], dict[str, Any]], every: float = 0.005) -> dict[str, Any]:
    """Runs in a process of its own, whose memory is looked at `every` so many seconds. Looking costs CPU time too."""
    peak, stop = [memory("RssAnon")], threading.Event()

    def watch() -> None:
        while not stop.wait(every):
            peak[0] = max(peak[0], memory("RssAnon"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    began = time.perf_counter()
    told = work()
    wall = time.perf_counter() - began
    stop.set()
    return {
        **told,
        "cpu_s": round(time.process_time(), 3),
        "wall_s": round(wall, 3),
        "private_mb": round(peak[0]),
        "rss_mb": round(memory("VmHWM")),
    }


def query_pycocotools(captions: str, instances: str) -> dict[str, Any]:
    from pycocotools.coco import COCO

    began = time.process_time()
    things, notes = COCO(instances), COCO(captions)
    ids = sorted(things.getImgIds(catIds=things.getCatIds(catNms=ASKED)))
    said = notes.loadAnns(notes.getAnnIds(imgIds=ids))
    call = time.process_time() - began
    texts = {number: [] for number in ids}
    for note in sorted(said, key=lambda note: note["id"]):
        texts[note["image_id"]].append(note["caption"])
    return {"pictures": len(ids), "captions": len(said), "answer": digest(texts), "call_cpu_s": round(call, 3)}


def digest(texts: dict[int, list[str]]) -> str:
    """Of numbers of pictures and their captions, in the order of their numbers."""
    return hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()[:16]


def read_json(captions: str, instances: str) -> dict[str, Any]:
    """What nothing that reads both files in full with msgspec can be faster than: the windows decoded, the records dropped."""
    from hf_diffusion_kit.data.annotations import CAPTIONS, INSTANCES, stream

    began = time.process_time()
    records = sum(
        len(part) for path, kinds in ((captions, CAPTIONS), (instances, INSTANCES)) for _, part in stream(Path(path), kinds)
    )
    return {"records": records, "call_cpu_s": round(time.process_time() - began, 3)}


def build_kit(captions: str, instances: str) -> dict[str, Any]:
    from hf_diffusion_kit.data.index import open_index

    began = time.process_time()
    index = open_index(Path(captions), Path(instances))
    size = sum(path.stat().st_size for path in index.folder.iterdir())
    return {"pictures": len(index), "index_mb": round(size / 1e6), "call_cpu_s": round(time.process_time() - began, 3)}


def query_kit(captions: str, instances: str, warm: str = "") -> dict[str, Any]:
    from hf_diffusion_kit.data.base import Findings
    from hf_diffusion_kit.data.index import open_index
    from hf_diffusion_kit.data.query import query
    from hf_diffusion_kit.data.subset import Subset

    began = time.process_time()
    index = open_index(Path(captions), Path(instances))
    places = query(index, Subset(category=tuple(ASKED)), Findings())
    said = index.column("captions", places)
    call = time.process_time() - began
    texts = dict(zip(map(int, index.column("image_id", places)), said, strict=True))
    told: dict[str, Any] = {"pictures": len(places), "captions": sum(map(len, said)), "answer": digest(texts)}
    told |= {"call_cpu_s": round(call, 3)}
    if not warm:
        return told
    times = []
    for _ in range(50):
        began = time.perf_counter()
        index = open_index(Path(captions), Path(instances))
        index.column("captions", query(index, Subset(category=tuple(ASKED)), Findings()))
        times.append(1000 * (time.perf_counter() - began))
    return {**told, "warm_ms": round(statistics.median(times), 2)}


def load_kit(captions: str, images: str) -> dict[str, Any]:
    from hf_diffusion_kit.data import load_dataset

    began = time.process_time()
    rows = load_dataset("coco-captions", annotations=captions, images=images)
    first = time.process_time() - began
    began = time.process_time()
    load_dataset("coco-captions", annotations=captions, images=images)
    return {"rows": len(rows), "call_cpu_s": round(first, 3), "second_call_cpu_s": round(time.process_time() - began, 3)}


def load_imagefolder(images: str) -> dict[str, Any]:
    import datasets

    began = time.process_time()
    rows = datasets.load_dataset("imagefolder", data_dir=images, split="train")
    return {"rows": len(rows), "call_cpu_s": round(time.process_time() - began, 3)}


def stream_kit(captions: str) -> dict[str, Any]:
    """Every row of the pair, as a stream, addresses instead of pictures."""
    from hf_diffusion_kit.data import load_dataset

    count = said = 0
    for row in load_dataset("coco-captions", annotations=captions, streaming=True).with_format("arrow").iter(1000):
        count += row.num_rows
        said += len(row["captions"].combine_chunks().values)
    return {"rows": count, "captions": said}


def save_kit(pictures: str, out: str) -> dict[str, Any]:
    from hf_diffusion_kit.data import load_captioned, shards

    data = load_captioned(pictures, prompt="a picture")
    rows, sync, real = data.dataset.data.table, [0.0], os.fsync

    def timed(handle: int) -> None:
        began = time.process_time()
        real(handle)
        sync[0] += time.process_time() - began

    os.fsync = timed  # `datasets` leaves the disk to the kernel, which counts for no process
    before = time.process_time()
    shards.write(rows, Path(f"{out}-parquet"))
    parquet = time.process_time() - before - sync[0]
    os.fsync = real
    shutil.rmtree(f"{out}-parquet")
    before = time.process_time()
    data.save(out)  # the same again, with its card, attribution and page of pictures
    told = {"rows": len(data), "parquet_cpu_s": round(parquet, 3), "sync_cpu_s": round(sync[0], 3)}
    return {**told, "save_cpu_s": round(time.process_time() - before, 3)}


def save_datasets(pictures: str, out: str) -> dict[str, Any]:
    import datasets

    from hf_diffusion_kit.data import load_captioned

    rows = load_captioned(pictures, prompt="a picture").dataset
    paths = [{"path": str(Path(pictures) / name), "bytes": None} for name in rows["file_name"]]
    named = datasets.Dataset.from_dict({**{k: rows[k][:] for k in rows.column_names if k != "image"}, "image": paths})
    named = named.cast_column("image", datasets.Image())
    before = time.process_time()
    embedded = named.with_format("arrow").map(datasets.table.embed_table_storage, batched=True, batch_size=100)
    Path(out).mkdir(parents=True, exist_ok=True)
    embedded.with_format(None).to_parquet(str(Path(out) / "train.parquet"), batch_size=100)
    return {"rows": len(rows), "parquet_cpu_s": round(time.process_time() - before, 3)}


WORK = {
    work.__name__: work
    for work in (
        query_pycocotools,
        query_kit,
        read_json,
        build_kit,
        load_kit,
        load_imagefolder,
        stream_kit,
        save_kit,
        save_datasets,
    )
}


class Bench:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def run(self, name: str, *args: object, cache: str = "cache", fresh: bool = True) -> dict[str, Any]:
        home = self.scratch / cache
        if fresh:
            shutil.rmtree(home, ignore_errors=True)
        env = {
            **os.environ,
            "HF_HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        }
        words = [sys.executable, __file__, "--child", name, *map(str, args)]
        done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def pair(self, scale: float = 1.0) -> tuple[Path, Path]:
        import coco_pair

        files = coco_pair.write(self.scratch / f"pair-{scale:g}", scale)
        time.sleep(2.5)  # a file that has just been written is not trusted by its times
        return files

    def pictures(self, count: int) -> Path:
        """`count` different JPEGs of about 100 KB."""
        import numpy as np
        from PIL import Image

        folder = self.scratch / f"pictures-{count}"
        if not folder.is_dir():
            half = folder.with_suffix(".part")
            half.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(0)
            for number in range(count):
                blocks = Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8))
                blocks.resize((640, 480), Image.Resampling.BILINEAR).save(half / f"{number:06d}.jpg", quality=88)
            half.rename(folder)
        return folder

    def query(self) -> dict[str, Any]:
        captions, instances = self.pair()
        runs: dict[str, list[dict[str, Any]]] = {"pycocotools": [], "cold": [], "warm_process": [], "reading_alone": []}
        for _ in range(REPEATS):  # in turn, for what else the machine does costs all of them
            runs["pycocotools"].append(self.run("query_pycocotools", captions, instances))
            runs["reading_alone"].append(self.run("read_json", captions, instances))
            runs["cold"].append(self.run("query_kit", captions, instances))
            time.sleep(2.5)  # as for the pair: the next process finds an index that it trusts after one look
            self.run("query_kit", captions, instances, fresh=False)
            runs["warm_process"].append(self.run("query_kit", captions, instances, "warm", fresh=False))
        told = {name: _middle(every) for name, every in runs.items()}
        if len({run["answer"] for name in ("pycocotools", "cold", "warm_process") for run in runs[name]}) != 1:
            raise SystemExit("the answers differ")
        ratios = {
            "cpu": round(told["pycocotools"]["call_cpu_s"] / told["cold"]["call_cpu_s"], 1),
            "cpu_with_imports": round(told["pycocotools"]["cpu_s"] / told["cold"]["cpu_s"], 1),
            "private": round(told["pycocotools"]["private_mb"] / told["cold"]["private_mb"], 1),
            "rss": round(told["pycocotools"]["rss_mb"] / told["cold"]["rss_mb"], 1),
        }
        return {**told, "times_less": ratios}

    def build(self) -> dict[str, Any]:
        return {f"{scale:g}": self.run("build_kit", *self.pair(scale)) for scale in (0.1, 1.0, 10.0)}

    def load(self) -> dict[str, Any]:
        captions, _ = self.pair()
        images = self.scratch / "empty-pictures"
        if not images.is_dir():
            images.mkdir()
            for image in json.loads(captions.read_text())["images"]:
                (images / image["file_name"]).touch()
        folder = self.scratch / "imagefolder"
        if not folder.is_dir():  # under names without "train", for with it the stock loader drops the captions
            folder.mkdir()
            names = [name.name.replace("train2014", "x") for name in images.iterdir()]
            for name in names:
                (folder / name).touch()
            (folder / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": name, "text": "a"}) for name in names))
        cold = self.run("load_kit", captions, images)
        warm = self.run("load_kit", captions, images, fresh=False)
        stock = self.run("load_imagefolder", folder)
        again = self.run("load_imagefolder", folder, fresh=False)
        return {"cold": cold, "warm": warm, "imagefolder": stock, "imagefolder_cached": again}

    def write(self) -> dict[str, Any]:
        pictures = self.pictures(1000)
        runs: dict[str, list[dict[str, Any]]] = {"save_kit": [], "save_datasets": []}
        for _ in range(5):  # in turn, for a busy disk costs both CPU time
            for name, told in runs.items():
                told.append(self.run(name, pictures, self.scratch / "saved"))
                shutil.rmtree(self.scratch / "saved", ignore_errors=True)
        ours, stock = (sorted(told, key=lambda run: run["parquet_cpu_s"])[2] for told in runs.values())
        every = {name: [run["parquet_cpu_s"] for run in told] for name, told in runs.items()}
        ratio = round(stock["parquet_cpu_s"] / ours["parquet_cpu_s"], 1)
        return {"kit": ours, "datasets": stock, "parquet_cpu_s": every, "times_less_cpu": ratio}

    def memory(self) -> dict[str, Any]:
        rows = {}
        for count in (500, 2000, 8000):
            rows[str(count)] = self.run("save_kit", self.pictures(count), self.scratch / f"saved-{count}")
            shutil.rmtree(self.scratch / f"saved-{count}", ignore_errors=True)
        return rows

    def stream(self) -> dict[str, Any]:
        return {f"{scale:g}": self.run("stream_kit", self.pair(scale)[0]) for scale in (0.1, 1.0, 10.0)}


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(runs, key=lambda run: run["cpu_s"])[len(runs) // 2]


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        name, *args = sys.argv[2:]
        print(json.dumps(measured(lambda: WORK[name](*args), 0.05 if name.startswith("save") else 0.02)))
        return
    parts = ("query", "build", "load", "write", "memory", "stream")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=list(parts))
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/hfdk-bench"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data.json"))
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    told = json.loads(args.out.read_text()) if args.out.is_file() else {}
    for part in args.parts:
        told[part] = getattr(Bench(args.scratch), part)()
        print(part, json.dumps(told[part], indent=1))
        from hf_diffusion_kit.hardware import hardware, pick_device, versions

        told |= {"versions": versions(), "hardware": hardware(pick_device("cpu"))}
        args.out.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
