"""Trainings in several processes that the tests of distributed recording share.

Every function that takes `rank` first runs in each process of a group; `together` starts them.
"""

import datetime
import itertools
import multiprocessing
import os
import random
import signal
import time
import traceback
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import phasescope as ps
from phasescope.datasets import ShuffledBatches
from phasescope.trajectory import distributed
from trajectory import loops

N_STEPS = 40
# Longer than anything here takes on a busy machine, and shorter than anyone wants to wait.
PATIENCE = 240.0


class Group:
    """Processes that were started together and end, at the latest, with the `with` block."""

    def __init__(self, processes, size, function, *arguments, meeting):
        self.connections, self.members = [], []
        for rank in range(size):
            ours, theirs = multiprocessing.Pipe(duplex=False)
            target = (function, rank, size, str(meeting), theirs, arguments)
            self.members.append(processes.Process(target=_member, args=target, daemon=True))
            self.connections.append(ours)
            self.members[-1].start()
            theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()

    def kill(self):
        for member in self.members:
            member.kill()
            member.join()

    def results(self):
        """What every process returned; None for one that died without a word."""
        deadline = time.monotonic() + PATIENCE
        found = []
        for connection in self.connections:
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"no answer within {PATIENCE} s: the processes hang")
            try:
                found.append(connection.recv())
            except EOFError:
                found.append(("died", None))
        errors = [f"rank {i}: {value}" for i, (kind, value) in enumerate(found) if kind == "error"]
        if errors:
            raise AssertionError("\n".join(["processes failed", *errors]))
        return [value for _, value in found]

    def wait_for_a_death(self):
        """Wait until one process has ended, however it did."""
        self.wait_until(lambda: not all(member.is_alive() for member in self.members))

    def wait_until(self, condition):
        """Wait for something that the processes bring about."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing happened within {PATIENCE} s: the processes hang")
            time.sleep(0.005)


def _member(function, rank, size, meeting, connection, arguments):
    torch.set_num_threads(1)
    warnings.simplefilter("error", ps.errors.RecordingWarning)
    timeout = datetime.timedelta(seconds=PATIENCE / 2)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=timeout
        )
        answer = ("result", _portable(function(rank, *arguments)))
    except BaseException:
        answer = ("error", traceback.format_exc())
    connection.send(answer)
    if dist.is_initialized():
        dist.destroy_process_group()


def _portable(value):
    """Tensors as arrays: a tensor would be fetched from its process, which may have ended."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    return type(value)(map(_portable, value)) if isinstance(value, list | tuple) else value


def setup(rank, size=2, *, one_order=False):
    """The net of `loops` in DistributedDataParallel, with data and randomness of its own.

    With `one_order` every rank has the same order of its data, so that the position of one fits
    another.
    """
    torch.manual_seed(0)
    net = loops.Net()
    model = DistributedDataParallel(net) if dist.is_initialized() else net
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, gamma=0.8)
    data = torch.Generator().manual_seed(0)
    x = torch.randn(160, 6, generator=data)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    mine = slice(rank, None, size)
    seed = 0 if one_order else rank
    batches = ShuffledBatches(x[mine], y[mine], 160 // size // 10, seed=seed, n_epochs=4)
    torch.manual_seed(100 + rank)  # dropout masks
    return model, optimizer, scheduler, batches


def everything():
    """Every group of a vector or of norms, on schedules that do not coincide."""
    return {
        "gradients": ps.every(1),
        "unclipped_gradients": ps.every(1),
        "updates": ps.every(2),
        "decay": ps.every(3),
        "weights": ps.log_spaced(9) | ps.every(11),
        "moments": ps.every(5),
        "norms": ps.every(1),
        "norms/unclipped_gradients": ps.every(1),
        "probes": ps.every(4),
    }


def training(
    rank,
    directory=None,
    *,
    resume=False,
    stop=None,
    on_step=None,
    only_rank_0=False,
    one_order=False,
    watch=False,
):
    """A training with everything recorded, or without a recorder if there is no directory.

    Returns the final weights, random numbers that show the state of the generator, and with
    `watch` the gradients that hooks, the loop and the optimizer saw.
    """
    model, optimizer, scheduler, batches = setup(rank, one_order=one_order)
    recorder = None
    if directory is not None and (rank == 0 or not only_rank_0):
        probe_input = torch.linspace(-1, 1, 12).reshape(2, 6)
        recorder = ps.Recorder(
            directory,
            model,
            optimizer,
            save=everything(),
            n_steps=N_STEPS,
            checkpoint=ps.every(10),
            state={"scheduler": scheduler, "loader": batches},
            probes={"logits": lambda m: m(probe_input)},
            config={"seed": 0},
            resume=resume,
        ).attach()
    seen = {"local": [], "reduced": [], "clipped": []}
    if watch:
        local = {}
        for name, parameter in model.module.named_parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: local.update({name: p.grad.clone()})
            )
    done = recorder.step if recorder else 0
    for x, y in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if watch:
            names = [name for name, _ in model.module.named_parameters()]
            seen["local"].append(_flat([local[name] for name in names]))
            seen["reduced"].append(_flat([p.grad for p in model.parameters()]))
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        if watch:
            seen["clipped"].append(_flat([p.grad for p in model.parameters()]))
        optimizer.step()
        scheduler.step()
        done += 1
        if recorder:
            recorder.log(train_loss=loss)
            recorder.end_step()
        if on_step is not None:
            on_step(done)
        if done == stop:
            break
    if recorder:
        with warnings.catch_warnings():
            if stop is not None:
                warnings.filterwarnings("ignore", message=f"n_steps={N_STEPS} was announced")
            recorder.close()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return {"state": state, "random": torch.rand(3), "step": done, **(seen if watch else {})}


def _flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors]).clone()


def recorded_and_bare(rank, directory):
    """The same training with a recorder, and without one."""
    recorded = training(rank, directory, watch=True)
    return recorded, training(rank, watch=True)


def with_warnings(rank, function, *arguments):
    """What a function returned, and what the recorder warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ps.errors.RecordingWarning)
        result = function(rank, *arguments)
    return result, [str(w.message) for w in caught if w.category is ps.errors.RecordingWarning]


def resumed(rank, directory):
    return training(rank, directory, resume=True, one_order=True)


def stopped(rank, directory, step):
    return training(rank, directory, stop=step, one_order=True)


def only_on_rank_0(rank, directory):
    return training(rank, directory, only_rank_0=True)


def error_of(rank, function, *arguments):
    """The message of the package's error that a process met, or the type of another error."""
    distributed.WAIT = datetime.timedelta(seconds=0.5)
    try:
        function(rank, *arguments)
    except ps.errors.PhasescopeError as error:
        return str(error)
    except Exception as error:
        return type(error).__name__
    return None


def resumed_only_on_rank_0(rank, directory):
    return training(rank, directory, resume=True, only_rank_0=True, one_order=True)


def resumed_on_disks_of_their_own(rank, folder):
    """Every rank calls the directory by the same name, but only rank 0 sees the run."""
    here = folder / f"node-{rank}"
    here.mkdir(exist_ok=True)
    os.chdir(here)
    return training(rank, "run", resume=True, one_order=True)


def into_different_directories(rank, folder):
    distributed.WAIT = datetime.timedelta(seconds=0.5)
    return training(rank, folder / f"run-{rank}", stop=3)


def closed_after_the_group(rank, directory):
    """A recorder that outlives torch.distributed; its checkpoint is taken at the end."""
    model, optimizer, scheduler, batches = setup(rank)
    state = {"scheduler": scheduler, "loader": batches}
    save = {"gradients": ps.every(1)}
    recorder = ps.Recorder(
        directory, model, optimizer, save=save, checkpoint=ps.at(5), state=state
    ).attach()
    for x, y in itertools.islice(batches, 3):
        loops.step(model, optimizer, x, y)
        recorder.log(rank=rank)
        recorder.end_step()
    dist.barrier()
    dist.destroy_process_group()
    recorder.close()


def mortal(rank, train, directory, victim, moment):
    """A training, begun or resumed, in which one rank dies at a `moment`; see `loops.death`."""
    on_step = loops.death(moment) if rank == victim else None
    return train(rank, directory, resume=True, on_step=on_step)


class Deaths:
    """Kills groups of processes at random moments and resumes them."""

    def __init__(self, processes, folder, seed, train, n_steps):
        self.generator = random.Random(seed)
        self._processes = processes
        self._folder = folder
        self._train = train
        self._n_steps = n_steps
        self._starts = itertools.count()

    def start(self, directory, victim, moment):
        meeting = self._folder / f"meeting-{next(self._starts)}"
        arguments = (mortal, self._train, directory, victim, moment)
        return Group(self._processes, 2, *arguments, meeting=meeting)

    def die(self, directory):
        """Kill one process somewhere and the other soon after; whether one was killed in time."""
        victim = self.generator.randrange(2)
        kind = self.generator.choice(["step", "before rename", "after rename", "time"])
        limits = {"step": self._n_steps // 2, "time": 1}
        moment = (kind, self.generator.randint(1, limits.get(kind, 12 if victim else 60)))
        with self.start(directory, victim, moment) as group:
            if kind == "time":
                time.sleep(self.generator.uniform(0, 0.8))
            else:
                group.wait_for_a_death()
            # What the other still gets done in this time, it gets done alone.
            time.sleep(self.generator.choice([0, 0.02]))
            group.kill()
            return any(member.exitcode == -signal.SIGKILL for member in group.members)

    def finish(self, directory):
        with self.start(directory, 0, ("step", 1000)) as group:
            return group.results()


def die_and_resume(deaths, folder, n_deaths, check):
    died = 0
    for run in itertools.count():
        directory = folder / str(run)
        for _ in range(deaths.generator.randint(1, 3)):
            died += deaths.die(directory)
        check(directory, deaths.finish(directory))
        if died >= n_deaths:
            return
        assert run < n_deaths + 5
