// Examples to click: each brings the shipped picture and a prompt, and leaves the other settings as they are.
(() => {
  const { given, say, make, ask, tell, whenThere } = window.framewake;
  const ADDRESS = "/page/example";

  async function take(prompt) {
    try {
      const bytes = await (await ask(ADDRESS)).blob();
      await window.framewake.picture.choose(new File([bytes], "red-circle.png", { type: bytes.type }));
      tell("fw-prompt", prompt);
    } catch (error) {
      window.framewake.picture.tell(error.message);
    }
  }

  whenThere("#fw-examples", (place) => {
    place.append(
      make("p", { className: "fw-quiet", id: "fw-examples-title" }, say("examples.title")),
      ...given.examples.map((prompt) =>
        make(
          "button",
          { type: "button", className: "fw-example", onclick: () => take(prompt) },
          make("img", { src: given.root + ADDRESS, alt: "", width: 32, height: 32 }),
          make("span", { lang: "en" }, prompt),
        ),
      ),
    );
  });
})();
