// Going on from a finished video: what comes next is said in its card, and makes a video of its own.
(() => {
  const { say, make, ask, parse } = window.framewake;

  function open(button, video, does) {
    const others = button.parentElement;
    const words = make("textarea", { id: "fw-onward", rows: 2, maxLength: 10_000, value: video.prompt });
    const go = make("button", { type: "submit", className: "fw-button", "data-does": "onward.go" }, say("onward.go"));
    const close = make("button", { type: "button", className: "fw-button", onclick: leave }, say("onward.close"));
    const form = make(
      "form",
      { className: "fw-onward", onsubmit: send },
      make("label", { htmlFor: "fw-onward" }, say("onward.label")),
      words,
      make("div", { className: "fw-actions" }, go, close),
    );

    function leave() {
      form.remove();
      others.hidden = false;
      button.focus();
    }

    async function send(event) {
      event.preventDefault();
      does.tellProblem("");
      if (!words.value.trim()) return does.tellProblem(say("make.no_prompt"));
      go.disabled = true;
      const body = new FormData();
      body.append("prompt", words.value);
      try {
        const answer = await ask(`/v1/videos/${video.id}/extensions`, { method: "POST", body });
        const made = parse(await answer.text());
        leave();
        await does.look(made);
      } catch (error) {
        does.tellProblem(error.message);
      }
      go.disabled = false;
    }

    others.hidden = true;
    others.after(form);
    words.focus();
    words.select();
  }

  window.framewake.onward = { open };
})();
