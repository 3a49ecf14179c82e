"""Metrics as a table on the screen."""


def metrics_table(metrics: dict) -> str:
    """The metrics of ``evaluate_predictions`` as text: the whole first, then every kind of person."""
    lines = [f"{'':16}{'n':>8}{'MAE':>8}{'CS@5':>8}{'bias':>8}", _row("all", metrics)]
    for kind, rows in metrics["by"].items():
        lines += ["", kind, *(_row(f"  {name}", row) for name, row in rows.items())]
    asked = [key.removesuffix("_accuracy") for key in metrics if key.endswith("_accuracy")]
    rights = [name for name in asked if metrics[f"{name}_n"]]
    lines += ["", *(f"{name} right for {metrics[f'{name}_accuracy']:.1%} of {metrics[f'{name}_n']}" for name in rights)]
    if metrics["baseline_mae"]:
        share = metrics["mae"] / metrics["baseline_mae"]
        lines.append(f"always answering the mean age: MAE {metrics['baseline_mae']:.2f}; this is {share:.0%} of it")
    return "\n".join(lines)


def _row(name: str, row: dict) -> str:
    if not row["n"]:
        return f"{name:16}{0:>8}"
    return f"{name:16}{row['n']:>8}{row['mae']:>8.2f}{row['cs5']:>8.1%}{row['bias']:>+8.2f}"
