"""What a change of the configuration means: what changed, in a few words, and what of it has to wait for an upgrade.

Left out: what has to be done for it (``supervisor``).
"""

from __future__ import annotations

from cachelb.config import Config


def fixed_at_start(old: Config, new: Config) -> list[str]:
    """Settings that differ but cannot be changed while running."""
    fixed = []
    if old.listen != new.listen.model_copy(update={"proxy_protocol": old.listen.proxy_protocol}):
        fixed.append("[listen]")
    if [service.listen for service in old.tcp] != [service.listen for service in new.tcp]:
        fixed.append("[[tcp]] listen")
    if (old.admin.socket, old.admin.socket_mode) != (new.admin.socket, new.admin.socket_mode):
        fixed.append("[admin] socket")
    if old.hostnet != new.hostnet:
        fixed.append("[hostnet]")
    if old.intercept.model_copy(update={"non_http": new.intercept.non_http}) != new.intercept:
        fixed.append("[intercept], all but non_http,")
    if old.relay.workers != new.relay.workers:
        fixed.append("[relay] workers")
    if (old.index.keys, old.index.state) != (new.index.keys, new.index.state):
        fixed.append("[index] keys and state")
    if (old.service.user, old.service.group, old.service.pid_file) != (new.service.user, new.service.group, new.service.pid_file):
        fixed.append("[service] user, group and pid_file")
    return fixed


def difference(old: Config, new: Config) -> str:
    """In a few words, what a reload changed."""
    before, after = {n.name: n for n in old.node}, {n.name: n for n in new.node}
    parts = [f"added {name}" for name in after if name not in before]
    parts += [f"removed {name}" for name in before if name not in after]
    for name in after:
        if name in before and after[name] != before[name]:
            values = [
                f"{key} {was} -> {now}" for (key, was), (_, now) in zip(before[name], after[name], strict=True) if was != now
            ]
            parts.append(f"changed {name} ({', '.join(values)})")
    sections = [f"[{name}]" for (name, was), (_, now) in zip(old, new, strict=True) if was != now and name != "node"]
    return ", ".join(parts + [f"changed {name}" for name in sections]) or "nothing changed"
