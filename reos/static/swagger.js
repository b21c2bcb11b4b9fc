// `validatorUrl: null` keeps the document from being sent to a validator elsewhere.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  filter: true,
  validatorUrl: null,
});
