#!/usr/bin/env python3
"""Writes the dashboards beside it: the queries stand here once, and Grafana's form around them is made.

    deploy/grafana/make.py            writes
    deploy/grafana/make.py --check    fails where a file is not what this would write
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
RATE = "$__rate_interval"

# Each panel: title, unit, what it shows, and its queries with their legends.
DASHBOARDS = {
    "overview": ("Quorate: overview", [
        ("Leaders", "none", "1 is right. 0: nothing is accepted.", [("sum(quorate_is_leader)", "leaders")]),
        ("Nodes attached", "none", "Nodes with a link to the leader.", [("sum(quorate_link_attached)", "attached")]),
        ("Tasks by state", "none", "Of the whole cluster; every node shows the same.",
         [("max by (state) (quorate_tasks)", "{{state}}")]),
        ("Oldest queued task", "s", "Grows while nothing can take it: `quorate task explain`.",
         [("max by (class) (quorate_queue_age_seconds)", "{{class}}")]),
        ("Steps a second", "ops", "Committed steps of agents.",
         [(f"sum by (project) (rate(quorate_steps_total[{RATE}]))", "{{project}}")]),
        ("Calls by outcome", "reqps", "Public calls; an error in the middle of a stream is not seen here.",
         [(f"sum by (code) (rate(quorate_requests_total[{RATE}]))", "{{code}}")]),
        ("Call time, 99 of 100", "s", "Streams left out.",
         [(f"histogram_quantile(0.99, sum by (le) (rate(quorate_request_seconds_bucket[{RATE}])))", "p99")]),
        ("Tokens a second", "none", "Computed, taken from cache, generated.", [
            (f"sum(rate(quorate_tokens_computed_total[{RATE}]))", "computed"),
            (f"sum(rate(quorate_tokens_cached_total[{RATE}]))", "cached"),
            (f"sum(rate(quorate_tokens_generated_total[{RATE}]))", "generated")]),
    ]),
    "consensus": ("Quorate: consensus and disks", [
        ("Who leads", "none", "1 on the leader.", [("quorate_is_leader", "{{instance}}")]),
        ("Leader changes in 10 minutes", "none", "More than a few: machines or networks stall.",
         [("sum(increase(quorate_leader_changes_total[10m]))", "changes")]),
        ("Applied entries a second", "ops", "Of each coordinator; they should be equal.",
         [(f"rate(quorate_applied_index[{RATE}])", "{{instance}}")]),
        ("Durable writes, 99 of 100", "s", "A step waits for `log` and `segments`.",
         [(f"histogram_quantile(0.99, sum by (le, what) (rate(quorate_fsync_seconds_bucket[{RATE}])))", "{{what}}")]),
        ("Durable writes a second", "ops", "Groups of writes.",
         [(f"sum by (what) (rate(quorate_fsync_seconds_count[{RATE}]))", "{{what}}")]),
        ("Links", "none", "1 while the node is attached to the leader.", [("quorate_link_attached", "{{instance}}")]),
        ("Attaches in 10 minutes", "none", "Each is a start, a move of the leader, or a stall.",
         [("increase(quorate_link_attaches_total[10m])", "{{instance}}")]),
        ("Clocks against the leader's", "s", "Beyond 5 s it is told in the log.",
         [("quorate_clock_ahead_seconds", "{{instance}}")]),
        ("Wall clock refused in 10 minutes", "none", "The leader's own clock was not believed.",
         [("sum(increase(quorate_wall_clock_refused_total[10m]))", "refused")]),
    ]),
    "engine": ("Quorate: engines", [
        ("Tokens a second by model", "none", "Generated.",
         [(f"sum by (model) (rate(quorate_tokens_generated_total[{RATE}]))", "{{model}}")]),
        ("Share of prompts from cache", "percentunit", "The higher, the less is computed twice.",
         [(f"sum by (model) (rate(quorate_tokens_cached_total[{RATE}])) / (sum by (model) (rate(quorate_tokens_cached_total[{RATE}])) + sum by (model) (rate(quorate_tokens_computed_total[{RATE}])))",
           "{{model}}")]),
        ("First token, 95 of 100", "s", "From the call to the first token.",
         [(f"histogram_quantile(0.95, sum by (le, model) (rate(quorate_model_first_token_seconds_bucket[{RATE}])))", "{{model}}")]),
        ("Model calls by outcome", "ops", "`refused`: no budget or no lease.",
         [(f"sum by (model, outcome) (rate(quorate_model_calls_total[{RATE}]))", "{{model}} {{outcome}}")]),
        ("KV cache by tier", "bytes", "memory, host, disk.", [("sum by (tier) (quorate_kv_bytes)", "{{tier}}")]),
        ("KV evicted a second", "none", "Blocks, by reason.",
         [(f"sum by (reason) (rate(quorate_kv_evictions_total[{RATE}]))", "{{reason}}")]),
        ("KV brought back a second", "Bps", "From a lower tier.",
         [(f"sum by (tier) (rate(quorate_kv_restored_bytes_total[{RATE}]))", "{{tier}}")]),
        ("Calls about sequences", "ops", "Pause, resume, fork, prefetch, pin, retain, drop.",
         [(f"sum by (verb, outcome) (rate(quorate_kv_verbs_total[{RATE}]))", "{{verb}} {{outcome}}")]),
        ("Tokens computed again a second", "none", "Because their values were lost.",
         [(f"sum by (model) (rate(quorate_tokens_recomputed_total[{RATE}]))", "{{model}}")]),
        ("Preempted in 10 minutes", "none", "Sequences that gave up their place.",
         [("sum(increase(quorate_sequences_preempted_total[10m]))", "preempted")]),
    ]),
    "projects": ("Quorate: projects and quotas", [
        ("Used of the limit", "percentunit", "Reserved counts as used.",
         [("max by (path, key) (quorate_quota_used) / (max by (path, key) (quorate_quota_limit) > 0)", "{{path}} {{key}}")]),
        ("Used", "none", "By path and key.", [("max by (path, key) (quorate_quota_used)", "{{path}} {{key}}")]),
        ("Limits", "none", "Keys without a limit have no line.",
         [("max by (path, key) (quorate_quota_limit)", "{{path}} {{key}}")]),
        ("Steps a second by project", "ops", "", [(f"sum by (project) (rate(quorate_steps_total[{RATE}]))", "{{project}}")]),
        ("KV cache by project", "bytes", "Projects without a quota are `other`.",
         [("sum by (project, tier) (quorate_kv_bytes)", "{{project}} {{tier}}")]),
        ("KV cache by class", "bytes", "", [("sum by (class) (quorate_kv_bytes)", "{{class}}")]),
    ]),
    "context": ("Quorate: context that moves", [
        ("Segments held", "none", "On each node.", [("quorate_segments", "{{instance}}")]),
        ("Bytes of segments", "bytes", "On each node.", [("quorate_segment_bytes", "{{instance}}")]),
        ("Sent to other nodes a second", "Bps", "", [(f"rate(quorate_context_bytes_sent_total[{RATE}])", "{{instance}}")]),
        ("Received a second", "Bps", "", [(f"rate(quorate_context_bytes_received_total[{RATE}])", "{{instance}}")]),
        ("Moved of what whole chains would move", "percentunit", "The lower, the more is shared.",
         [("sum(quorate_context_bytes_sent_total) / sum(quorate_context_bytes_full_total)", "share")]),
        ("Too few copies", "none", "What each node has to bring to another store, and what nobody has any more.",
         [("quorate_chains_short", "{{instance}} short"), ("quorate_chains_lost", "{{instance}} lost")]),
        ("Copies made again in 10 minutes", "none", "Tasks, memories and definitions, on other stores.",
         [("increase(quorate_chains_repaired_total[10m])", "{{instance}}")]),
        ("Swept a second", "Bps", "Deleted because nothing names it.",
         [(f"rate(quorate_segment_bytes_swept_total[{RATE}])", "{{instance}}")]),
        ("Projects not swept", "none", "A record of them can't be read.", [("quorate_sweeps_held_up", "{{instance}}")]),
        ("Segments swept in 10 minutes", "none", "", [("increase(quorate_segments_swept_total[10m])", "{{instance}}")]),
        ("Damaged segments", "none", "Any: look at the disk.", [("quorate_segments_damaged_total", "{{instance}}")]),
    ]),
    "nodes": ("Quorate: nodes", [
        ("Resident memory", "bytes", "Weights that are mapped count as they are touched.",
         [("quorate_resident_bytes", "{{instance}}")]),
        ("Agents", "none", "That live on each node.", [("quorate_agents", "{{instance}}")]),
        ("From event to effect, 99 of 100", "s", "What an agent hears, and what it does about it.",
         [(f"histogram_quantile(0.99, sum by (le, instance) (rate(quorate_agent_event_seconds_bucket[{RATE}])))", "{{instance}}")]),
        ("Agents started again", "none", "After a panic.", [("quorate_agent_restarts_total", "{{instance}}")]),
        ("Fenced writes", "none", "From nodes whose lease was over; every node shows the same.",
         [("max by (kind) (quorate_fenced_total)", "{{kind}}")]),
        ("Refused calls a second", "reqps", "Before any handler saw them.",
         [(f"sum by (reason) (rate(quorate_requests_refused_total[{RATE}]))", "{{reason}}")]),
    ]),
}


def panel(number, title, unit, text, queries):
    place = {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)}
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [{"refId": chr(65 + i), "expr": expr, "legendFormat": legend, "datasource": source}
               for i, (expr, legend) in enumerate(queries)]
    return {"id": number + 1, "type": "timeseries", "title": title, "description": text, "gridPos": place, "datasource": source,
            "targets": targets, "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}}


def dashboard(name, title, panels):
    variable = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {"uid": f"quorate-{name}", "title": title, "tags": ["quorate"], "schemaVersion": 39, "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"}, "templating": {"list": [variable]}, "editable": True,
            "panels": [panel(number, *rest) for number, rest in enumerate(panels)]}


def main():
    wrong = []
    for name, (title, panels) in DASHBOARDS.items():
        text = json.dumps(dashboard(name, title, panels), indent=1, ensure_ascii=False) + "\n"
        file = HERE / f"{name}.json"
        if "--check" not in sys.argv:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            wrong.append(file.name)
    if wrong:
        sys.exit(f"{', '.join(wrong)}: not what make.py writes; run deploy/grafana/make.py")


if __name__ == "__main__":
    main()
