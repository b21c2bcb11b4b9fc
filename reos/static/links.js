// The token goes to the API only when somebody presses the button: opening the page uses nothing up.
const form = document.querySelector("form");
const outcome = document.getElementById("outcome");

function show(text, isProblem) {
  outcome.textContent = text;
  outcome.classList.toggle("problem", isProblem);
  outcome.focus();
}

function sentencesOf(error) {
  return [error.message, ...(error.details.errors || []).map(({ message }) => `${message}.`)].join("\n");
}

function fieldsOf(form) {
  const fields = { token: new URLSearchParams(location.search).get("token") };
  for (const input of form.querySelectorAll("input[name]")) fields[input.name] = input.value;
  return fields;
}

async function send(form) {
  const response = await fetch(form.dataset.address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    credentials: "omit",
    body: JSON.stringify(fieldsOf(form)),
  });
  if (!response.ok) throw new Error(sentencesOf((await response.json()).error));
}

// Without a script the button would do nothing, so the form waits for this one.
form?.toggleAttribute("hidden", false);
document.getElementById("needs-script")?.remove();
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  for (const again of form.querySelectorAll("[data-repeats]")) {
    if (again.value !== document.getElementById(again.dataset.repeats).value) {
      show("The two are not the same.", true);
      return;
    }
  }
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await send(form);
    form.hidden = true;
    show(form.dataset.done, false);
  } catch (error) {
    // A TypeError is fetch's own, a SyntaxError an answer that is not the API's.
    const isOurs = !(error instanceof TypeError || error instanceof SyntaxError);
    show(isOurs ? error.message : "The service could not be reached. Try again in a moment.", true);
    button.disabled = false;
  }
});
