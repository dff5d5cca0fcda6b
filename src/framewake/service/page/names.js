// Names for those who hear the page: what Gradio leaves without one, or names in English only.
(() => {
  const { say, whenThere } = window.framewake;

  whenThere("#fw-dice", (dice) => dice.setAttribute("aria-label", say("setting.seed.dice")));

  for (const [id, key] of [["resolution", "setting.resolution"], ["is_stable", "setting.motion"]]) {
    whenThere(`#fw-${id}`, (group) => {
      group.setAttribute("role", "radiogroup");
      group.setAttribute("aria-label", say(key));
    });
  }

  for (const id of ["frames", "steps"]) {
    const name = say(`setting.${id}`);
    for (const kind of ["number", "range"]) {
      whenThere(`#fw-${id} input[type=${kind}]`, (box) => box.setAttribute("aria-label", name));
    }
    whenThere(`#fw-${id} .reset-button`, (button) => button.setAttribute("aria-label", say("setting.reset", { name })));
  }

  // Whether what a button unfolds is there to be read.
  for (const id of ["fw-loras", "fw-advanced"]) {
    whenThere(`#${id} button.label-wrap`, (button) => {
      const tell = () => button.setAttribute("aria-expanded", String(button.classList.contains("open")));
      new MutationObserver(tell).observe(button, { attributeFilter: ["class"] });
      tell();
    });
  }
})();
