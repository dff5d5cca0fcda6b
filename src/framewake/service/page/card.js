// The large view of one video: what it shows and says, and what can be done with it.
(() => {
  const { given, say, translated, make, content, lasting, ask, seeds, onward } = window.framewake;
  const ACTIVE = ["queued", "in_progress"];
  const ENDED = ["completed", "failed", "cancelled"];
  const LATE = ["enlarge", "decode", "write"]; // stages behind the last step: no draft comes any more
  const NEXT = 0; // as the step behind which a video pauses

  function whole(video, does) {
    const parts = [];
    const [width, height] = video.size.split("x");
    if (seeds.isMoving(video)) {
      const label = video.status === "completed" ? video.prompt : `${say("video.draft")}: ${video.prompt}`;
      const player = make("video", { ...seeds.player(video), controls: true, id: "fw-player", "aria-label": label });
      player.style.aspectRatio = `${width} / ${height}`;
      parts.push(player);
    }
    if (video.status === "in_progress") {
      const preview = make("img", { className: "fw-preview", alt: say("video.preview"), hidden: true });
      const range = { "aria-label": say("stage.denoise"), "aria-valuemin": 0, "aria-valuemax": 100 };
      const bar = make("div", { className: "fw-bar", role: "progressbar", ...range });
      bar.append(make("div"));
      const window_ = make("div", { className: "fw-window" }, preview, make("span", { className: "fw-pulse" }));
      window_.style.aspectRatio = `${width} / ${height}`;
      parts.push(window_, bar, make("p", { className: "fw-progress" }));
    } else if (video.status !== "completed") {
      parts.push(make("p", { className: `fw-told fw-${video.status}`, role: "status" }));
    }
    parts.push(
      make("p", { className: "fw-said" }, video.prompt),
      make("ul", { className: "fw-notes" }),
      make(
        "p",
        { className: "fw-quiet" },
        say("video.details", {
          size: video.size.replace("x", " × "),
          frames: video.num_frames,
          steps: video.num_inference_steps,
          seed: video.seed,
        }) + loras(video),
      ),
      make("div", { className: "fw-actions" }, ...actions(video, does)),
    );
    return make("article", { className: "fw-card", "data-id": video.id, "data-status": video.status }, ...parts);
  }

  // The API's own spelling: a file with its ending, and its weight behind a colon.
  function loras(video) {
    const names = video.lora.map((text) => text.replace(/\.\w+:/, " ")).join(", ");
    return names && say("video.loras", { names });
  }

  const isLate = (video) => LATE.includes(video.stage);
  const mayPause = (video) => video.status === "in_progress" && !isLate(video);

  function actions(video, does) {
    const button = (key, work, kind = "") =>
      make("button", { type: "button", className: `fw-button ${kind}`, "data-does": key, onclick: work }, say(key));
    const found = [];
    const isToPause = video.status === "in_progress" && video.pauses_after === NEXT;
    if (mayPause(video) && !isToPause) found.push(button("video.pause", () => does.pause(video)));
    if (video.status === "paused" || isToPause) found.push(button("video.resume", () => does.resume(video)));
    if (ACTIVE.includes(video.status)) found.push(button("video.cancel", () => does.stop(video), "fw-danger"));
    if (video.status === "paused") found.push(button("video.drop", () => does.stop(video), "fw-danger"));
    if (video.status === "completed") {
      const link = { href: content(video, "video"), download: "", className: "fw-button" };
      found.push(make("a", link, say("video.download")));
      for (const kind of ["GIF", "WebP"]) {
        const convert = (event) => saveAs(video, kind.toLowerCase(), event.currentTarget, does.tellProblem);
        const name = `${say("video.download")}: ${kind}`;
        found.push(make("button", { type: "button", className: "fw-button", "aria-label": name, onclick: convert }, kind));
      }
    }
    if (video.status === "completed" && given.needsPicture) {
      found.push(button("video.onward", (event) => onward.open(event.currentTarget, video, does)));
    }
    found.push(button("video.reuse", () => does.reuse(video)));
    if (["failed", "cancelled"].includes(video.status)) found.push(button("video.retry", () => does.retry(video)));
    if (ENDED.includes(video.status)) found.push(button("video.remove", () => does.leave(video), "fw-danger"));
    return found;
  }

  // Made when it is asked for, which may take seconds.
  async function saveAs(video, kind, button, tellProblem) {
    tellProblem("");
    button.disabled = true;
    try {
      const answer = await ask(`/v1/videos/${video.id}/content?format=${kind}`);
      const said = answer.headers.get("content-disposition");
      const name = /filename\*=utf-8''([^;]+)/i.exec(said)?.[1] ?? /filename="([^"]+)"/.exec(said)[1];
      const href = URL.createObjectURL(await answer.blob());
      make("a", { href, download: decodeURIComponent(name) }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
    } catch (error) {
      tellProblem(error.message);
    }
    button.disabled = false;
  }

  // What changes while a video keeps its status.
  function fill(place, video, does) {
    const buttons = place.querySelector(".fw-actions");
    const wish = `${video.pauses_after} ${isLate(video)}`;
    if (buttons.dataset.wish !== wish) {
      const hadFocus = buttons.contains(document.activeElement);
      buttons.replaceChildren(...actions(video, does));
      buttons.dataset.wish = wish;
      if (hadFocus) buttons.firstElementChild.focus();
    }
    const notes = (video.notes ?? []).map((text) => make("li", {}, translated(text)));
    const there = place.querySelector(".fw-notes");
    if (there.children.length !== notes.length) there.replaceChildren(...notes);
    if (video.status === "in_progress") {
      const bar = place.querySelector(".fw-bar");
      bar.setAttribute("aria-valuenow", video.progress);
      bar.firstElementChild.style.width = `${Math.max(video.progress, 1)}%`;
      const words = [say(`stage.${video.stage ?? "start"}`)];
      if (video.stage === "denoise" && video.step > 0) {
        words[0] = say("video.step", { step: video.step, steps: video.num_inference_steps });
      }
      if (video.pauses_after === NEXT) words.push(say("video.pausing"));
      if (video.seconds_left) words.push(say("video.left", { time: lasting(video.seconds_left) }));
      place.querySelector(".fw-progress").textContent = words.join(" · ");
      return;
    }
    const told = place.querySelector(".fw-told");
    if (!told) return;
    if (video.status === "queued") {
      const position = video.queue_position ?? 1;
      const words = [position === 1 ? say("video.next") : say("video.position", { position })];
      if (video.seconds_left) words.push(say("video.takes", { time: lasting(video.seconds_left) }));
      told.textContent = words.join(" · ");
    } else if (video.status === "paused") {
      told.textContent = say("video.paused", { step: video.step, steps: video.num_inference_steps });
    } else if (video.status === "failed") {
      told.textContent = video.error ? translated(video.error.message) : say("state.failed");
    } else told.textContent = say("video.cancelled");
  }

  window.framewake.card = { make: whole, fill };
})();
