"""The numbers of a comparison as flat records."""

from experiments.comparison.report import FITTED, KINDS, METRICS, TPRS, Result
from experiments.harness.records import Record, record, records

MORE = {
    "auprc_out": "AUPRC out",
    **{f"fpr{100 * tpr:g}": f"FPR{100 * tpr:g}" for tpr in TPRS},
}


def of_result(result: Result, **keys) -> list[Record]:
    """What `report.measure` told; `keys` say of which benchmark, network and seed."""
    numbers = []
    for kind in KINDS:
        for name, row in result[kind].items():
            numbers += of_metrics(row, method=name, **keys)
            for metric, quantity in MORE.items():
                rate = row[metric], row[f"{metric}_ci95"]
                numbers.append(record(quantity, *rate, method=name, **keys))
    fitted = next((name for name in FITTED if name in result["methods"]), None)
    keys_of_fitted = {"method": fitted, **keys}
    numbers += records({"ε": result["epsilon"]}, **keys_of_fitted)
    for layer in result["layers"]:
        of = {
            "AUROC": layer["auroc"],
            "α": layer["alpha"],
            "dimensions": layer["dim"],
            "spread of noise": layer["noise_spread"],
        }
        numbers += records(of, layer=layer["name"], **keys_of_fitted)
        plain, interval = layer["auroc_no_step"], layer["auroc_no_step_ci95"]
        at = {"layer": layer["name"], **keys_of_fitted}
        numbers.append(record("AUROC, ε = 0", plain, interval, **at))
    for test in result["paired"]:
        if test["against"] is not None:
            at = {"method": test["row"], "against": test["against"], **keys}
            difference = test["difference"], test["ci95"]
            numbers.append(record("difference of AUROC", *difference, **at))
            numbers.append(record("p", test["p"], **at))
    return numbers


def of_metrics(row: Result, **keys) -> list[Record]:
    """Each of `METRICS`, with its interval."""
    return [
        record(metric.upper(), row[metric], row[f"{metric}_ci95"], **keys)
        for metric in METRICS
    ]


def of_table2(result: Result) -> list[Record]:
    """Of what metrics.json of `table2` holds."""
    keys = {
        "benchmark": result["benchmark"],
        "network": result["model"]["name"].partition("(")[0].lower(),
        "seed": result["seed"],
        "condition": result["protocol"],
        "train_images": result["counts"]["train"],
    }
    accuracy = record("accuracy", result["model"]["accuracy"], set="test", **keys)
    return [accuracy, *of_result(result, **keys)]


def of_score(facts: Result, pair: str) -> list[Record]:
    """Of what metrics.json of `score` holds."""
    keys = {"benchmark": pair, "network": facts["model"], "seed": facts["seed"]}
    told = {"accuracy": facts["accuracy"]}
    chosen = {"threshold": facts["threshold"]}
    return [
        *records(told, set="test", **keys),
        *records(chosen, method=facts["detector"], **keys),
        *of_result(facts, **keys),
    ]
