"""An evaluation as one HTML file: no script, nothing fetched, light and dark.

Plots are SVG written here, so that a report needs no plotting library and stays sharp at any
size. With pictures of the data set in it (as data URIs) a report belongs in ``runs/``, which git
ignores.
"""

from __future__ import annotations

import base64
from html import escape
from typing import Any

from lambda_function.images.decode import decode_image
from training.data.encoding import encoded

GALLERY = 24  # pictures shown per gallery
THUMBNAIL = 220  # pixels, the longer side

_STYLE = """
:root { color-scheme: light dark;
  --page:#f7f7f5; --card:#ffffff; --ink:#1c1c1a; --soft:#66655f; --line:#e3e2dd; --track:#eeede9;
  --blue:37,99,190; --orange:214,96,30; --good:#2563be; --bad:#c2410c; }
@media (prefers-color-scheme: dark) { :root {
  --page:#161615; --card:#20201e; --ink:#f1f0ec; --soft:#a3a19a; --line:#363531; --track:#2c2b28;
  --blue:96,158,240; --orange:240,132,70; --good:#7db2f5; --bad:#f59a6a; } }
* { box-sizing: border-box }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif }
main { max-width:1080px; margin:0 auto; padding:36px 24px 64px }
h1 { font-size:27px; line-height:1.2; margin:0 0 6px; letter-spacing:-.01em }
h2 { font-size:19px; margin:44px 0 4px } h3 { font-size:15px; margin:0 0 10px }
p { margin:0 0 14px; max-width:74ch } .soft { color:var(--soft) } code { font-size:.92em }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(168px,1fr)); gap:12px;
  margin:20px 0 8px }
.tile,.panel { background:var(--card); border:1px solid var(--line); border-radius:10px }
.tile { padding:14px 16px } .panel { padding:18px 20px; overflow-x:auto }
.tile b { display:block; font-size:27px; line-height:1.25; font-weight:650;
  font-variant-numeric:tabular-nums }
.tile small { color:var(--soft); display:block; font-size:12.5px; line-height:1.4 }
.pair { display:grid; grid-template-columns:repeat(auto-fit,minmax(400px,1fr)); gap:16px }
table { border-collapse:collapse; font-variant-numeric:tabular-nums; width:100% }
th { font-weight:500; color:var(--soft); text-align:right; font-size:13px }
td,th { padding:6px 10px; border-bottom:1px solid var(--line); text-align:right }
tr:last-child td { border-bottom:0 }
td:first-child,th:first-child { text-align:left }
td.wide { width:46%; padding:2px 10px }
.matrix { width:auto; margin:0 auto; border-collapse:separate; border-spacing:3px }
.matrix td,.matrix th { border:0; padding:0; text-align:center }
.matrix td { width:52px; height:40px; border-radius:5px; background:var(--track) }
.matrix th.row { text-align:right; padding-right:10px; white-space:nowrap }
.matrix th.column { height:88px; vertical-align:bottom; padding-bottom:6px }
.matrix th.column span { writing-mode:vertical-rl; transform:rotate(180deg) }
.matrix .strong { color:#fff }
@media (prefers-color-scheme: dark) { .matrix .strong { color:#10100f } }
.gallery { display:grid; grid-template-columns:repeat(auto-fill,minmax(152px,1fr)); gap:12px }
figure { margin:0; background:var(--card); border:1px solid var(--line); border-radius:10px;
  overflow:hidden }
figure img { width:100%; height:188px; object-fit:contain; display:block; background:var(--track) }
figcaption { padding:9px 11px; font-size:12.5px; line-height:1.45; overflow-wrap:anywhere }
figcaption b { font-weight:600 }
.file { display:block; white-space:nowrap; overflow:hidden; text-overflow:ellipsis }
.good { color:var(--good) } .bad { color:var(--bad) }
svg { display:block; width:100%; height:auto } svg text { fill:var(--soft); font-size:12px }
.grid { stroke:var(--line) } .axis { stroke:var(--soft) } .ideal { stroke:var(--ink);
  stroke-width:1.3; stroke-dasharray:5 4 }
.bar { fill:rgba(var(--blue),.85) } .count { fill:rgba(var(--blue),.35) }
.whisker { stroke:var(--ink); stroke-width:1.4 } .dot { fill:rgb(var(--blue)) }
.range { stroke:rgba(var(--blue),.4); stroke-width:5; stroke-linecap:round }
dl { display:grid; grid-template-columns:max-content 1fr; gap:3px 18px; margin:0 }
dt { color:var(--soft) } dd { margin:0; overflow-wrap:anywhere }
@media print { body { background:none } figure,.panel,.tile { break-inside:avoid } }
"""


def report_html(report: dict[str, Any], thumbnails: dict[str, str]) -> str:
    """Return the page.

    Args:
        report: the contents of ``report.json``, see ``evaluate.run``.
        thumbnails: data URI by file; where a file has none, no gallery shows it.
    """
    models, images = report["models"], report["images"]
    title = " against ".join(_name(figures["model"]) for figures in models)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=soft>Scored on {images['count']} images ({escape(images['name'])}) of "
        f"{len(images['classes'])} classes.</p>",
    ]
    if report["comparison"]:
        body.append(_comparison(report, thumbnails))
    alone = len(models) == 1
    body += [_model(figures, images["classes"], thumbnails, alone=alone) for figures in models]
    body.append(_origin(report))
    return page(title, "\n".join(body))


def page(title: str, body: str) -> str:
    """Return a whole HTML page around a body, in this module's style."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body><main>\n"
        + body
        + "\n</main></body></html>\n"
    )


def thumbnail(data: bytes) -> str:
    """Return a small JPEG of an encoded image as a data URI."""
    image = decode_image(data)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    jpeg = encoded(image, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _name(model: dict[str, Any]) -> str:
    return f"{model['name']} {model['version']} ({model['kind']})"


def _model(
    figures: dict[str, Any], classes: list[str], thumbnails: dict[str, str], *, alone: bool
) -> str:
    heading = "" if alone else f"<h2>{escape(_name(figures['model']))}</h2>"
    return "\n".join(
        [
            heading,
            _tiles(figures),
            "<h2>Classes</h2><p class=soft>Recall is the share of a class's images that are "
            "found; the band is its 95 % Wilson interval.</p>",
            _per_class(figures["per_class"]),
            "<h2>What is taken for what</h2><p class=soft>A row is what is in the picture, a "
            "column what the model says. Blue is right, orange wrong; depth is the share of the "
            "row.</p>",
            _confusion(figures["confusion"], classes),
            "<h2>Do the probabilities mean what they say?</h2><p class=soft>Of the answers given "
            "with 80 % confidence, 80 % should be right. Bars under the dashed line claim too "
            "much; whiskers are 95 % intervals.</p>",
            _reliability(figures),
            _mistakes(figures["mistakes"], thumbnails),
        ]
    )


def _tiles(figures: dict[str, Any]) -> str:
    found, before = figures["metrics"], figures["metrics_before_temperature"]
    low, high = found["accuracy_interval_95"]
    ece = found["expected_calibration_error"]
    ece_low, ece_high = found["expected_calibration_error_interval_95"]

    def earlier(key: str) -> str:
        return f"{before[key]:.3f} before temperature" if before else "temperature 1"

    tiles = [
        (
            "Accuracy",
            f"{found['accuracy']:.1%}",
            f"{found['correct']} of {found['images']}, 95 % interval {low:.1%} to {high:.1%}",
        ),
        ("Macro-F1", f"{found['macro_f1']:.3f}", "mean over classes, each counting the same"),
        (
            "Calibration error",
            f"{ece:.3f}",
            f"ECE, 10 bins, 95 % interval {ece_low:.3f} to {ece_high:.3f}; "
            + earlier("expected_calibration_error"),
        ),
        (
            "Log loss",
            f"{found['negative_log_likelihood']:.3f}",
            "NLL in nats; " + earlier("negative_log_likelihood"),
        ),
        (
            "Brier score",
            f"{found['brier_score']:.3f}",
            "0 is perfect, 2 the worst; " + earlier("brier_score"),
        ),
    ]
    return (
        "<div class=tiles>"
        + "".join(
            f"<div class=tile><small>{name}</small><b>{value}</b><small>{note}</small></div>"
            for name, value, note in tiles
        )
        + "</div>"
    )


def _per_class(rows: list[dict[str, Any]]) -> str:
    body = "".join(
        f"<tr><td>{escape(row['label'])}</td><td>{row['images']}</td>"
        f"<td>{row['precision']:.3f}</td><td>{row['recall']:.3f}</td>"
        f"<td class=wide>{_interval_svg(row['recall'], row['recall_interval_95'])}</td>"
        f"<td>{row['f1']:.3f}</td></tr>"
        for row in rows
    )
    return (
        "<div class=panel><table><tr><th>class</th><th>images</th><th>precision</th>"
        "<th>recall</th><th style='text-align:center'>recall, 0 to 1</th><th>F1</th></tr>"
        f"{body}</table></div>"
    )


def _interval_svg(value: float, interval: list[float]) -> str:
    low, high = (6 + 388 * v for v in interval)
    ticks = "".join(
        f'<line class=grid x1="{6 + 388 * t:.1f}" x2="{6 + 388 * t:.1f}" y1="2" y2="22"/>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<svg viewBox="0 0 400 24" role="img" aria-label="{value:.3f}, 95 % interval '
        f'{interval[0]:.3f} to {interval[1]:.3f}">{ticks}'
        f'<line class=range x1="{low:.1f}" x2="{high:.1f}" y1="12" y2="12"/>'
        f'<circle class=dot cx="{6 + 388 * value:.1f}" cy="12" r="5"/></svg>'
    )


def _confusion(matrix: list[list[int]], classes: list[str]) -> str:
    header = "".join(f"<th class=column><span>{escape(name)}</span></th>" for name in classes)
    rows = "".join(
        f"<tr><th class=row>{escape(classes[row])}</th>"
        + "".join(_cell(row, column, count, sum(counts)) for column, count in enumerate(counts))
        + "</tr>"
        for row, counts in enumerate(matrix)
    )
    return f"<div class=panel><table class=matrix><tr><th></th>{header}</tr>{rows}</table></div>"


def _cell(row: int, column: int, count: int, total: int) -> str:
    if not count:
        return "<td></td>"
    share = count / total
    right = row == column
    # Mistakes are few: their shade rises faster, or they could not be seen.
    depth = 0.15 + 0.85 * (share if right else min(1.0, share * 3))
    colour = "--blue" if right else "--orange"
    strong = " class=strong" if depth > 0.55 else ""
    return (
        f'<td{strong} style="background:rgba(var({colour}),{depth:.2f})" '
        f'title="{share:.1%} of the row">{count}</td>'
    )


def _reliability(figures: dict[str, Any]) -> str:
    return (
        "<div class=panel style='max-width:640px;margin:0 auto'>"
        f"{_reliability_svg(figures['reliability'])}</div>"
    )


def _reliability_svg(bins: list[dict[str, Any]]) -> str:
    left, top, width, height, counts_top, counts_height = 56, 14, 500, 300, 350, 70
    parts = []
    for tick in range(0, 11, 2):
        y, x = top + height * (1 - tick / 10), left + width * tick / 10
        parts.append(f'<line class=grid x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>')
        parts.append(_text(left - 8, y + 4, f"{tick * 10} %", "end"))
        parts.append(_text(x, counts_top + counts_height + 18, f"{tick * 10} %", "middle"))
    most = max(row["images"] for row in bins)
    for row in bins:
        x, bar_width = left + width * row["low"] + 3, width / len(bins) - 6
        middle = x + bar_width / 2
        count_height = counts_height * row["images"] / most
        parts.append(
            f'<rect class=count x="{x:.1f}" y="{counts_top + counts_height - count_height:.1f}" '
            f'width="{bar_width:.1f}" height="{count_height:.1f}" rx="2"/>'
        )
        if not row["images"]:
            continue
        label_y = counts_top + counts_height - count_height - 4
        parts.append(_text(middle, label_y, str(row["images"]), "middle"))
        bar_height = height * row["accuracy"]
        low, high = (top + height * (1 - v) for v in row["accuracy_interval_95"])
        parts.append(
            f'<rect class=bar x="{x:.1f}" y="{top + height - bar_height:.1f}" '
            f'width="{bar_width:.1f}" height="{bar_height:.1f}" rx="2"/>'
            f'<line class=whisker x1="{middle:.1f}" x2="{middle:.1f}" y1="{low:.1f}" '
            f'y2="{high:.1f}"/>'
        )
    right = left + width
    parts.append(
        f'<line class=ideal x1="{left}" y1="{top + height}" x2="{right}" y2="{top}"/>'
        f'<line class=axis x1="{left}" x2="{right}" y1="{top + height}" y2="{top + height}"/>'
        f'<line class=axis x1="{left}" x2="{right}" y1="{counts_top + counts_height}" '
        f'y2="{counts_top + counts_height}"/>'
    )
    parts.append(_text(left + width / 2, counts_top + counts_height + 38, "confidence", "middle"))
    parts.append(
        f'<text transform="translate(14 {top + height / 2}) rotate(-90)" '
        'text-anchor="middle">answers that are right</text>'
        f'<text transform="translate(14 {counts_top + counts_height / 2}) rotate(-90)" '
        'text-anchor="middle">images</text>'
    )
    return (
        '<svg viewBox="0 0 580 470" role="img" aria-label="reliability diagram">'
        + "".join(parts)
        + "</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _mistakes(mistakes: list[dict[str, Any]], thumbnails: dict[str, str]) -> str:
    shown = [answer for answer in mistakes[:GALLERY] if answer["file"] in thumbnails]
    if not shown:
        return ""
    figures = "".join(
        f'<figure><img src="{thumbnails[answer["file"]]}" alt=""><figcaption>'
        f"<span class=bad>said <b>{escape(answer['predicted'])}</b> "
        f"{answer['probability']:.0%}</span><br>"
        f"labelled <b>{escape(answer['label'])}</b> {answer['label_probability']:.0%}<br>"
        f"<span class='soft file' title='{escape(answer['file'])}'>{escape(answer['file'])}</span>"
        "</figcaption></figure>"
        for answer in shown
    )
    return (
        f"<h2>The worst mistakes</h2><p class=soft>{len(shown)} of {len(mistakes)}, the most "
        "confident first. Some may be wrong labels rather than wrong answers.</p>"
        f"<div class=gallery>{figures}</div>"
    )


def _comparison(report: dict[str, Any], thumbnails: dict[str, str]) -> str:
    from training.evaluation.evaluate import comparison_sentence

    found = report["comparison"]
    names = [escape(_name(figures["model"])) for figures in report["models"]]
    rows = "".join(_comparison_row(label, report["models"], key, style) for label, key, style in (
        ("Accuracy", "accuracy", ".1%"),
        ("Macro-F1", "macro_f1", ".3f"),
        ("Calibration error", "expected_calibration_error", ".3f"),
        ("Log loss", "negative_log_likelihood", ".3f"),
        ("Brier score", "brier_score", ".3f"),
    ))  # fmt: skip
    return (
        f"<div class=pair style='margin-top:20px'><div class=panel><table><tr><th></th>"
        f"<th>{names[0]}</th><th>{names[1]}</th></tr>{rows}</table></div>"
        "<div class=panel><table><tr><th>images where ...</th><th>second right</th>"
        "<th>second wrong</th></tr>"
        f"<tr><td>first right</td><td>{found['both_right']}</td>"
        f"<td>{found['only_first_right']}</td></tr><tr><td>first wrong</td>"
        f"<td>{found['only_second_right']}</td><td>{found['both_wrong']}</td></tr></table>"
        f"<p style='margin:14px 0 0'>{escape(comparison_sentence(report))}</p></div></div>"
        + _disagreements(found["disagreements"], thumbnails)
    )


def _comparison_row(label: str, models: list[dict[str, Any]], key: str, style: str) -> str:
    values = "".join(f"<td>{format(figures['metrics'][key], style)}</td>" for figures in models)
    return f"<tr><td>{label}</td>{values}</tr>"


def _disagreements(found: list[dict[str, Any]], thumbnails: dict[str, str]) -> str:
    shown = [d for d in found[:GALLERY] if d["first"]["file"] in thumbnails]
    if not shown:
        return ""
    figures = "".join(
        f'<figure><img src="{thumbnails[d["first"]["file"]]}" alt=""><figcaption>'
        f"labelled <b>{escape(d['first']['label'])}</b><br>"
        + "<br>".join(
            f"<span class={'good' if d['right'] == which else 'bad'}>{which}: "
            f"<b>{escape(d[which]['predicted'])}</b> {d[which]['probability']:.0%}</span>"
            for which in ("first", "second")
        )
        + "</figcaption></figure>"
        for d in shown
    )
    return f"<h2>Where one is right and the other wrong</h2><div class=gallery>{figures}</div>"


def _origin(report: dict[str, Any]) -> str:
    origin = report["provenance"]
    packages = ", ".join(f"{name} {version}" for name, version in origin["packages"].items())
    rows = {"date": origin["date"], "commit": origin["commit"]}
    for figures in report["models"]:
        model = figures["model"]
        rows[_name(model)] = (
            f"SHA-256 {model['sha256']}, {model['size_bytes'] / 1e6:.1f} MB, input "
            f"{model['input'][0]}x{model['input'][1]}, temperature {model['temperature']:.3f}"
        )
    rows["machine"] = f"{origin['processor']}, {origin['cores']} cores"
    rows["software"] = f"Python {origin['python']}, {packages}"
    entries = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in rows.items())
    return f"<h2>Where this comes from</h2><div class=panel><dl>{entries}</dl></div>"
