"""Write the page on costs from the stored benchmarks.

python -m tools.cost_page      # writes docs/explanation/costs.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import peak_memory, plan_1b
from diagnostics.measures.outputs import cost_of, design
from diagnostics.verdicts.surrogate import NODES

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "explanation" / "costs.md"
TEMPLATE = Path(__file__).with_name("costs.template.md")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())
    print(f"wrote {PAGE}")


def page() -> str:
    """Return the page."""
    stored = json.loads((RESULTS / "curvature.json").read_text())
    texts, nearly = stored["rows"][0], stored["rows"][-1]
    units = texts["seconds"]
    prediction = [cost_of(_design(count)) for count in (2, 4, 8)]
    return TEMPLATE.read_text().format(
        forwards="3T + 1",
        jvps="T² + 4T − 4",
        examples=", ".join(f"{each.forwards} and {each.jvps}" for each in prediction),
        units=_units(stored),
        together=f"{units['derivatives along four'] / units['forward']:.1f}",
        apart=f"{4 * units['derivative along one direction'] / units['forward']:.1f}",
        parameters=f"{texts['parameters']:,}",
        threads=stored["threads"],
        tools=_tools(texts),
        nearly=_nearly(nearly),
        summary=_summary(stored),
        graph=f"{texts['graph bytes'] / 2**20:.0f} MiB for these 32 texts",
        memory=_geometry(),
        peaks=_peaks(),
        **_plan(),
    )


def _peaks() -> str:
    """Peaks of processes, a table after its title."""
    stored = json.loads((RESULTS / "peak_memory.json").read_text())
    found = [f"{title}:\n\n{_table(rows)}" for title, rows in peak_memory.tables(stored).items()]
    words = "Copies are vectors as long as the model, by the growth of a peak from the middle size to the largest."
    return "\n\n".join([found[0], words, *found[1:]])


def _plan() -> dict[str, Any]:
    """What is said of a model of a billion parameters."""
    stored = json.loads((RESULTS / "plan_1b.json").read_text())
    one, plan, speed, counted = map(_table, plan_1b.tables(stored).values())
    work, parameters = stored["work"], stored["counted"]["bf16"]["parameters"]
    return {
        **{"one": one, "plan": plan, "speed": speed, "counted": counted, "billion": f"{parameters:,}"},
        **{name: work[name] for name in ("tokens", "batch", "products", "experts")},
        **{"examples_": work["examples"], "vector": 4 * parameters / 1e9},
        "read": 2 * parameters * (work["experts"] + 1) / 1e9,
    }


def _table(rows: list[list[str]]) -> str:
    """Rows of cells, the first of them headings."""
    ruled = [rows[0], ["---", *("---:" for _ in rows[0][1:])], *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def _design(count: int) -> list[Any]:
    """What is measured to predict a task of T experts."""
    names = [str(index) for index in range(count)]
    return design(names, names[0], NODES)


def _units(stored: dict[str, Any]) -> str:
    """Each derivative in units of a simpler one, by problem."""
    rows = stored["rows"]
    lines = [f"| | {' | '.join(row['problem'] for row in rows)} |", "| --- |" + " ---: |" * len(rows)]
    for kind in list(rows[0]["seconds"])[1:]:
        unit = "forward" if kind == "gradient" or kind.startswith("derivative") else "gradient"
        cells = [f"{row['seconds'][kind] / row['seconds'][unit]:.2f}" for row in rows]
        name = {"forward": "forward passes", "gradient": "gradients"}[unit]
        lines.append(f"| {kind}, in {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _tools(row: dict[str, Any]) -> str:
    """The tools on one problem."""
    best = next(iter(row["tools"].values()))["seconds"]
    lines = [
        f"**{row['problem']}**: ‖H‖₂ = {row['norm']['value']:.4g}, one gradient {row['seconds']['gradient']:.2f} s.",
        "",
        "| tool | value | residual | wrong | seconds | gradients | time over the first |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for tool, found in row["tools"].items():
        if "missing" in found:
            lines.append(f"| {tool} | not installed | | | | | |")
            continue
        lines.append(
            f"| {tool} | {found['value']:.4g} | {found['largest relative residual']:.2%} | {found['wrong']} of "
            f"{found['runs']} | {found['seconds']:.2f} | {found['gradients']:.1f} | {found['seconds'] / best:.1f} |"
        )
    return "\n".join(lines)


def _nearly(row: dict[str, Any]) -> str:
    """The tools where the largest eigenvalues nearly tie."""
    words = (
        "Two networks with the same weights, the second's loss counted −0.99 times: the largest eigenvalue and the "
        "one of the other sign are 1 % apart. A small residual does not tell which of the two was found: in one run of "
        "three it was the other, and its status is *lower bound*. An upper end within 1 % does."
    )
    return f"{words}\n\n{_tools(row)}"


def _summary(stored: dict[str, Any]) -> str:
    """How much faster ours is than other tools that are right at the same residual, on each problem."""
    lines = [
        "Our fastest against every other tool, each only where it was right every time with a residual within 1 %:",
        "",
    ]
    for row in stored["rows"]:
        good = {name: found["seconds"] for name, found in row["tools"].items() if _good(found)}
        own = {name: seconds for name, seconds in good.items() if name.startswith("diagnostics")}
        best = min(own, key=lambda name: own[name])
        others = sorted((seconds / own[best], name) for name, seconds in good.items() if name not in own)
        words = ", ".join(f"{ratio:.1f} times as fast as {name}" for ratio, name in others) or "no other was"
        lines.append(f"- {row['problem']}, by {best.removeprefix('diagnostics, ')}: {words}.")
    return "\n".join(lines)


def _good(found: dict[str, Any]) -> bool:
    """Whether a tool found the right eigenvalue, with a vector to show for it."""
    return "missing" not in found and not found["wrong"] and found["largest relative residual"] <= 0.0101


def _geometry() -> str:
    """Throughput and peak memory of streaming."""
    stored = json.loads((RESULTS / "geometry_streaming.json").read_text())
    lines = [
        "Peak memory of a process that measures the geometry of files, and of one that does no more than import:",
        "",
        "| parameters | experts | import, MiB | geometry, MiB |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for row in stored["memory"]:
        imported, measured = (row["peak"][name] / 2**20 for name in ("import", "geometry"))
        lines.append(f"| {row['parameters']:,} | {row['experts']} | {imported:.0f} | {measured:.0f} |")
    lines += ["", "Time of a geometry beside plain sequential reading of the same files, T = 8:", ""]
    lines += [
        "| parameters | stored as | files | reading, GB/s | geometry, GB/s | ratio | whole tensors in float64, ratio |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in stored["speed"]:
        seconds, size = row["seconds"], row["bytes"] / 1e9
        loop = f"{seconds['plain reading'] / seconds['plain loop']:.2f}" if "plain loop" in seconds else ""
        lines.append(
            f"| {row['parameters']:,} | {row['dtypes']} | {'from disk' if row['dropped'] else 'in the page cache'} | "
            f"{size / seconds['plain reading']:.1f} | {size / seconds['geometry']:.1f} | {row['ratio']:.2f} | {loop} |"
        )
    growth = [row for row in stored["growth"] if row["parameters"] == stored["growth"][0]["parameters"]]
    times = ", ".join(f"{row['core_seconds']['geometry']:.1f} s for T = {row['experts']}" for row in growth)
    lines += ["", f"Core seconds at {growth[0]['parameters']:,} parameters in fp32: {times}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
