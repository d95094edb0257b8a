"""An engine for tests of the comparison: `python -m tests.profiling.fake_engine SOURCE FD`.

SOURCE is a file's name: a line in it for each run says what was asked, so that tests see the order
of runs. The model has two layers; its times are made up, shorter each time it runs.
"""

from __future__ import annotations

from pathlib import Path

from ingot.child import serve
from ingot.profiling.engine import Request
from ingot.profiling.trace import Event, Header, Trace

MODULES = ("model.embed_tokens", "model.layers.0.mlp", "model.layers.1.mlp", "lm_head")


class FakeEngine:
    def __init__(self, source: str) -> None:
        self.log = Path(source)
        if self.log.stem == "broken":
            raise ValueError("it is broken")

    def run(self, request: Request, traced: bool) -> Trace:
        with self.log.parent.joinpath("order.txt").open("a") as order:
            order.write(f"{self.log.stem} {'traced' if traced else 'run'}\n")
        if 999 in request.tokens:
            raise ValueError("token id 999 is out of range")
        count = sum(1 for line in self.log.read_text().splitlines() if line) + 1
        self.log.write_text("run\n" * count)
        length = 10.0 + 10.0 / count
        args = {"step": 0, "phase": "prefill"}
        events = [Event("step", "step", 0.0, length * len(MODULES) + 4.0, args=args)]
        if traced:
            for index, module in enumerate(MODULES):
                start = 2.0 + length * index
                events.append(Event("k", "op", start, length, args={**args, "module": module}))
        header = Header(
            engine=self.log.stem,
            model={"kind": "decoder", "num_layers": 2},
            request={"tokens": list(request.tokens), "new_tokens": request.new_tokens},
            result={"tokens": [1] * request.new_tokens, "logits": [0.5, 1.0]},
            runs=[{"total_ms": events[0].duration_us / 1e3}],
            start_up={"load_ms": 1.0},
            memory={"peak_rss_mb": 10.0 + count},
        )
        return Trace(header, events)


if __name__ == "__main__":
    serve(FakeEngine)
