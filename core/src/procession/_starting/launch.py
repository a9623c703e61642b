"""Starting children, and ending them with their parent. Only parents import this."""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import time

from procession import process
from procession._choosing import selection as _selection
from procession._contracts.start_method import StartMethod
from procession._ground import standard
from procession._ground.after_fork import in_forked_children
from procession._ground.encoder import PICKLE
from procession._ground.resource_errors import raise_explained
from procession._memory import abandoned_memory
from procession._processes import inheritance, sigint
from procession._processes.family import active_children, family
from procession._processes.relatives import mentioned, relatives
from procession._starting import preload as _preload
from procession._starting.launch_plan import LaunchPlan
from procession._starting.lifeline import lifeline
from procession._starting.name_tag import tag
from procession._starting.post_mortem import PostMortem
from procession.child import DUMP_SIGNAL, flush_streams

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from procession._choosing.selector import Bequest
    from procession._ground.encoder import Encoder
    from procession._starting.process_options import ProcessOptions

_SIGKILL = 9

#: How long the daemonic children of a program that ends may take to end by SIGTERM, all
#: together, before they are killed.
TERMINATION_SECONDS = 5.0


class Methods:
    """The start methods that this process has used, one instance of each.

    Threads: any. Fork: a forked child begins with none; helper processes of the
    inherited instances are its parent's.
    """

    def __init__(self) -> None:
        # Without a lock, which a forked child would have to replace. Of two threads, one keeps
        # its instance: in the other's nothing has been started.
        self._instances: dict[str, StartMethod] = {}
        self._watches_forks = False

    def get(self, kind: type[StartMethod]) -> StartMethod:
        """Return the instance of the start method *kind*, made on first use."""
        found = self._instances.get(kind.name)
        if found is None:
            instance = kind()
            found = self._instances.setdefault(kind.name, instance)
            if found is instance:
                self._watch_forks(instance)
                if type(instance).collect is not StartMethod.collect:
                    family.collectors.append(instance.collect)
                    in_forked_children(family.collectors.clear)
        return found

    def _watch_forks(self, instance: StartMethod) -> None:
        # Most have nothing to abandon, and forgetting them costs a child less.
        if type(instance).abandon is not StartMethod.abandon:
            in_forked_children(instance.abandon)
        if not self._watches_forks:
            self._watches_forks = True
            in_forked_children(self._instances.clear)

    def close(self) -> None:
        """Stop the helper processes of every method. Idempotent."""
        while self._instances:
            try:
                _, instance = self._instances.popitem()
            except KeyError:
                return  # another thread was faster
            instance.close()


methods = Methods()
_watches_end = False


def launch(child: process.Process) -> None:
    """Start *child*, whose state was checked."""
    kind = _selection.load_start_method(child._method_name)
    # What was printed before the start comes before what the child prints, and a forked
    # child does not print it a second time.
    flush_streams()
    child._started_by = kind.name
    post_mortem = lifecycle = None
    is_copy = kind.features.inherits_memory
    if is_copy and "procession._messages.broker" in sys.modules:
        sys.modules["procession._messages.broker"].rest()
    # A copy would wait for ever for a module that another thread is just importing: what a child
    # may import early is imported before it then.
    has_threads = _thread._count() > 0
    bequest = _bequest(kind.name, to_copy=is_copy and not has_threads)
    if bequest["plugins"]:
        from procession._starting.lifecycle import Lifecycle

        lifecycle = Lifecycle.of(bequest["plugins"], child)
    if not _watches_end:
        _prepare_first()  # after the hooks: exit handlers that they register come after ours
    standard.watch()
    start = relatives.begin_start()
    child._started_at = time.monotonic()
    child._heard = sigint.heard()
    try:
        mentioned_files = mentioned(child) if is_copy else None
        post_mortem = PostMortem(tag(child._name, kind.name, child._parent_pid))
        plan = LaunchPlan(
            process=child,
            lifeline=lifeline.reading_end(),
            bequest=bequest,
            preload=_preload.get(),
            log=_log_settings(),
            given=set(),
            report=post_mortem.report,
            hooks=() if lifecycle is None else lifecycle.child,
            encoder=_encoder(child._serializer_name or bequest["names"].get("serializer")),
        )
        if is_copy and has_threads:
            # Whoever makes the first queue of a process loads them.
            from procession import queues  # noqa: F401
            from procession._mailboxes import packet_mailbox  # noqa: F401
        if child._own_options is None:
            child._child = methods.get(kind).launch(plan)
        else:
            _launch_with_options(child, child._own_options, kind, plan)
        assert child._child is not None
        post_mortem.pid = child._child.pid
        child._post_mortem = post_mortem
        child._lifecycle = lifecycle
        # Of a child with our memory, only its arguments tell what it has to do with.
        child._given = frozenset(plan.given) or mentioned_files
        family.children.add(child)  # from here on any thread may notice its end
        if standard.followed:
            from procession._standard import state as _standard_state

            _standard_state.note_start(child)
    except BaseException as error:
        if post_mortem is not None:
            post_mortem.close()
        if isinstance(error, OSError):
            raise_explained(error, f"cannot start {child.name}")
        raise
    finally:
        relatives.end_start(start)
    child._forget_work()
    if lifecycle is not None:
        lifecycle.started(child)


def _bequest(method: str, *, to_copy: bool) -> Bequest:
    """Return what a child inherits of the selection: but for how it was started itself.

    That is what it starts its own children by, as in multiprocessing.
    """
    bequest = _selection.bequest(to_copy=to_copy)
    if bequest["names"].get("start_method") == method:
        return bequest
    return {**bequest, "names": {**bequest["names"], "start_method": method}}


def _encoder(serializer: str | None) -> Encoder | None:
    """Return what the child is pickled by; quickly for `pickle` itself."""
    return None if serializer == PICKLE else _selection.encoder(serializer)


def _prepare_first() -> None:
    """Do what has to be done once, before the first child is started."""
    global _watches_end
    _watches_end = True
    main_thread = _main_thread()
    if main_thread is not None:
        sigint.listen(main_thread)
    inheritance.family_root()  # known before a fork, so that the child knows it, too
    atexit.register(end_children)
    # The registration for the exit is inherited, too, unless procession itself forked: these
    # children are a forked child's siblings. Each of these is a single step in C, since every
    # line of Python costs a child pages that it has to copy.
    for forget in (family.children.clear, *relatives.to_forget):
        in_forked_children(forget)
    if DUMP_SIGNAL in os.environ:
        from procession._processes.stack_file import arm

        arm(os.environ[DUMP_SIGNAL])


def _main_thread() -> int | None:
    """Return which thread is the main one, if that is known; without loading `threading`."""
    threading = sys.modules.get("threading")
    if threading is not None:
        ident: int | None = threading.main_thread().ident
        return ident
    return None if _thread._count() else _thread.get_ident()


def _launch_with_options(
    child: process.Process, options: ProcessOptions, kind: type[StartMethod], plan: LaunchPlan
) -> None:
    from procession._starting import surroundings as _surroundings

    _surroundings.check(options, kind)
    with _surroundings.Surroundings(options, child.name) as surroundings:
        plan = plan.replace(surroundings=surroundings)
        child._child = methods.get(kind).launch(plan)
    if options.max_seconds is not None or options.max_rss is not None:
        from procession._starting.limit_watch import watch

        try:
            child._limit_watch = watch(child._child, options)
        except BaseException:
            # No thread is to be had. A child without its limits is not what was asked for.
            started, child._child = child._child, None
            started.signal(_SIGKILL)
            started.wait()
            started.close()
            raise


def end_children() -> None:
    """End with this process what must not outlive it.

    Daemonic children are terminated: by SIGTERM and, who has not ended after
    `TERMINATION_SECONDS`, by SIGKILL. The others are waited for, and helper processes are
    stopped. Runs at exit; idempotent.
    """
    pools = sys.modules.get("procession._pools.forks")
    if pools is not None:
        pools.end_all()  # before their workers, whom they would replace
    if family.children:  # a child seldom has any, and what it calls costs it pages
        _end_running()
    methods.close()
    abandoned_memory.end_family()


def _end_running() -> None:
    """Terminate the daemonic children, and wait for the others."""
    daemons = [child for child in active_children() if child.daemon]
    for child in daemons:
        child.terminate()
    deadline = time.monotonic() + TERMINATION_SECONDS
    for child in daemons:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()
    for child in active_children():
        child.join()


def _log_settings() -> tuple[int, bool] | None:
    """Return the logger's settings; None for those that a child would have anyway."""
    logging = sys.modules.get("procession._starting.logging")
    settings = None if logging is None else logging.settings()
    return settings if settings and any(settings) else None


process.launcher = launch
