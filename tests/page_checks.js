// Evaluated in a page: what is wrong with it for somebody who does not see it, or not well. An empty list is good.
(() => {
  const faults = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true });

  if (!document.documentElement.lang) faults.push("no lang");
  if (!document.title.trim()) faults.push("no title");
  if (all("h1").length !== 1) faults.push("not one h1");
  if (all("main").length !== 1) faults.push("not one main");
  let before = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6").filter(isShown)) {
    const level = Number(heading.tagName[1]);
    if (level > before + 1) faults.push(`h${level} after h${before}`);
    before = level;
  }

  for (const image of all("img:not([alt])")) faults.push(`img without alt: ${image.src}`);
  for (const field of all("input, select, textarea")) {
    if (!field.labels.length && !field.ariaLabel) faults.push(`input without label: ${field.name}`);
  }
  const nameOf = (element) => element.ariaLabel || element.textContent.trim() || element.querySelector("[alt]")?.alt;
  for (const element of all("a, button")) {
    if (!nameOf(element)) faults.push(`${element.tagName.toLowerCase()} without name`);
  }
  for (const frame of all("iframe:not([title])")) faults.push(`iframe without title: ${frame.src}`);
  for (const cell of all("th:not([scope])")) faults.push(`th without scope: ${cell.textContent}`);
  const ids = all("[id]").map(({ id }) => id);
  for (const id of new Set(ids)) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`id ${id} is there twice`);
  for (const attribute of ["aria-describedby", "aria-labelledby", "for"]) {
    for (const element of all(`[${attribute}]`)) {
      if (!document.getElementById(element.getAttribute(attribute))) faults.push(`${attribute} leads nowhere`);
    }
  }
  if (all("[tabindex]").some(({ tabIndex }) => tabIndex > 0)) faults.push("tabindex above 0");

  // Where the focus is.
  for (const element of all("a, button, input").filter(isShown)) {
    element.focus({ focusVisible: true });
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    if (outlineStyle === "none" || parseFloat(outlineWidth) < 2) faults.push(`${element.tagName} does not show the focus`);
    element.blur();
  }

  // What moves would have to stop where less motion is asked for; nothing does.
  for (const element of all("*")) {
    const { transitionDuration, animationName } = getComputedStyle(element);
    if (/[1-9]/.test(transitionDuration) || animationName !== "none") faults.push(`${element.tagName} moves`);
  }

  // Contrast as WCAG 2 computes it, of each text against what is behind it.
  const colourOf = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    return { channels: [red, green, blue], alpha };
  };
  const over = (top, ground) => top.channels.map((value, i) => value * top.alpha + ground[i] * (1 - top.alpha));
  const luminance = (channels) => {
    const [red, green, blue] = channels.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const canvas = document.body.appendChild(document.createElement("i"));
  canvas.style.cssText = "background: Canvas";
  const empty = colourOf(getComputedStyle(canvas).backgroundColor).channels;
  canvas.remove();
  const groundOf = (element) => {
    if (!element) return empty;
    const own = colourOf(getComputedStyle(element).backgroundColor);
    return own.alpha === 1 ? own.channels : over(own, groundOf(element.parentElement));
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement: element, textContent } = walker.currentNode;
    if (!textContent.trim() || !isShown(element) || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName)) continue;
    const ground = groundOf(element);
    const colour = colourOf(getComputedStyle(element).color);
    for (let e = element; e; e = e.parentElement) colour.alpha *= Number(getComputedStyle(e).opacity);
    const [light, dark] = [luminance(over(colour, ground)), luminance(ground)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) faults.push(`contrast of ${textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return faults;
})();
