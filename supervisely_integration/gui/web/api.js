/* The API page: Swagger UI with the description that the app serves. */

SwaggerUIBundle({
  url: "./openapi.json",
  dom_id: "#api",
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
