// The fonts of the reader's system, since ReDoc's own would come from elsewhere.
const sans = "system-ui, sans-serif";
Redoc.init(
  "/openapi.json",
  {
    theme: {
      typography: {
        fontFamily: sans,
        headings: { fontFamily: sans },
        code: { fontFamily: "ui-monospace, monospace" },
      },
    },
  },
  document.getElementById("docs"),
);
