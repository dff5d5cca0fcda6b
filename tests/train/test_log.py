"""The table of a run: a row an update, cut where a run goes on, and a picture of it."""

from __future__ import annotations

import csv
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from framewake.errors import InputError
from framewake.media.curve import SIZE, Curve, drawn, ticks
from framewake.train.board import Board
from framewake.train.draws import LEVELS
from framewake.train.events import Update
from framewake.train.log import COLUMNS, Log, log_path, read_log

HEAD = ",".join(COLUMNS)
BLANK = "," * (len(COLUMNS) - 6)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(path):
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in table(path)]


def test_every_update_has_a_row_and_the_average_goes_on(engine, trainer_of, tmp_path):
    events = [e for e in trainer_of("whole.safetensors", steps=5).run(engine) if isinstance(e, Update)]
    rows = table(tmp_path / "whole.training.csv")
    assert [int(row["update"]) for row in rows] == [1, 2, 3, 4, 5]
    assert [(float(row["loss"]), float(row["loss_average"])) for row in rows] == [(e.loss, e.average) for e in events]
    average = events[0].loss
    for event in events:
        average = 0.95 * average + 0.05 * event.loss
        assert event.average == pytest.approx(average, rel=1e-12)
    list(trainer_of("part.safetensors", steps=3).run(engine))
    path = tmp_path / "part.training.csv"
    with path.open("a") as file:  # updates that were made but not saved, the last one cut off
        file.write(f"4,9,9,9,9,9{BLANK}\n5,9,9")
    list(trainer_of("part.safetensors", resumes=True, steps=5).run(engine))
    assert without_seconds(path) == without_seconds(tmp_path / "whole.training.csv")


def test_a_loss_far_above_the_first_is_told_once_and_again_by_a_run_that_goes_on(tmp_path):
    def told(log, losses, first=0):
        updates = [Update(n, 9, x, log.smoothed(x), 1.0, 1.0, 1.0, 0.0) for n, x in enumerate(losses, first + 1)]
        for update in updates:
            log.add(update)
        return [found for update in updates if (found := log.diverged(update)) is not None]

    path = tmp_path / "a.training.csv"
    assert told(Log(path, 0), [0.2, 2.0, 1.5, 8.0]) == []  # noise levels alone
    [found] = told(Log(path, 4), [20.0, 60.0, 60.0], first=4)
    assert (found.step, found.began) == (6, 0.2) and found.average > 2
    assert [each.step for each in told(Log(path, 7), [60.0], first=7)] == [8]


def curves(folder):
    """What TensorBoard shows of a folder: files by name, whole records, without what a later start purges."""
    found = {}
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at + 12 <= len(data):
            size, head = struct.unpack_from("<QI", data, at)
            if at + size + 16 > len(data):
                break  # cut off
            record, (total,) = data[at + 12 : at + 12 + size], struct.unpack_from("<I", data, at + 12 + size)
            assert (head, total) == (masked_crc32c(data[at : at + 8]), masked_crc32c(record))
            event = Event.FromString(record)
            at += size + 16
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                found = {name: [p for p in points if p[0] < event.step] for name, points in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_curves_are_the_rows_of_the_table_also_where_a_run_goes_on(engine, trainer_of, tmp_path):
    watched = {"validate_every": 2, "validation": "0.34", "tensorboard": str(tmp_path / "runs")}
    list(trainer_of("a.safetensors", steps=3, **watched).run(engine))
    folder = tmp_path / "runs" / "a"
    [first] = folder.iterdir()
    first.write_bytes(first.read_bytes() + first.read_bytes()[-60:])  # the power went in the middle of a record
    unsaved = Log(tmp_path / "unsaved.csv", 3, board=Board(folder, 3))
    unsaved.add(Update(4, 5, 9.0, 9.0, 9.0, 9.0, 9.0, 0.0))
    list(trainer_of("a.safetensors", resumes=True, steps=5).run(engine))
    rows, found = table(tmp_path / "a.training.csv"), curves(folder)
    assert len(found) == len(COLUMNS) - 1
    names = {"loss": "loss/update", "loss_average": "loss/average", "validation": "validation/mean"}
    names |= {f"validation_{level:g}": f"validation/{level:g}" for level in LEVELS}
    names |= {name: f"training/{name}" for name in ("gradient_norm", "learning_rate", "seconds")}
    for column, tag in names.items():
        expected = [(int(row["update"]), float(np.float32(row[column]))) for row in rows if row[column]]
        assert found[tag] == expected, tag


def test_a_place_for_curves_that_is_a_file(trainer_of, tmp_path):
    (tmp_path / "runs").write_text("x")
    with pytest.raises(InputError, match="runs is a file; name a folder"):
        trainer_of(tensorboard=str(tmp_path / "runs"))


def test_a_new_run_begins_a_new_table(tmp_path):
    path = tmp_path / "a.training.csv"
    for before in ("", "a,b\n1,2\n", f"{HEAD}\n1,1,1,1,1,1{BLANK}\n", "\x00\xff"):
        path.write_text(before)
        Log(path, 0)
        assert path.read_text() == HEAD + "\n"
    rows = ("1,1,1,1,1,1", "x,1,1,1,1,1", "2,2,nan,2,2,2", "4,0.5,0.25,1,1,1")
    path.write_text("\n".join([HEAD, "3,3,3", *(row + BLANK for row in rows), ""]))
    assert [row.update for row in read_log(path)] == [1, 4]
    log = Log(path, 3)
    assert [row.update for row in read_log(path)] == [1]
    assert log.smoothed(2.0) == pytest.approx(1.05)


def test_what_is_no_log_is_told(tmp_path):
    with pytest.raises(InputError, match=r"there is no .*b.training.csv"):
        read_log(tmp_path / "b.safetensors")
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="holds no updates"):
        read_log(tmp_path / "c.csv")
    assert log_path(tmp_path / "b.safetensors") == tmp_path / "b.training.csv"


def test_a_curve_goes_where_its_numbers_go():
    """A line that falls is high on the left and low on the right, and lies within its frame."""
    line = Curve("loss", [(n, 2.0 - 0.01 * n) for n in range(1, 101)], "#ff0000", 2)
    picture = np.asarray(drawn([line], title="\u5199 a", across="update")).astype(int)
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    rows, columns = np.nonzero((picture[40:, :, 0] > 200) & (picture[40:, :, 1] < 60))
    left, right = rows[columns < 100].mean(), rows[columns > SIZE[0] - 60].mean()
    assert left < 40 and right > SIZE[1] - 150
    alone = drawn([line._replace(points=[(1, 1.0)])], title="", across="")
    assert isinstance(alone, Image.Image) and (np.asarray(alone)[..., 1] < 60).any()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1, 20000), (0.0123, 0.0129), (-3.0, 500.0)])
def test_ticks_are_few_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 8 and min(found) >= low and max(found) <= high
