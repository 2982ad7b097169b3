// Validates an AsyncAPI and an OpenAPI document: node validate.mjs asyncapi.json openapi.json. Prints what is wrong and
// then ends with 1.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import { Validator } from "@seriousme/openapi-schema-validator";

const [asyncapi, openapi] = process.argv.slice(2).map((file) => readFileSync(file, "utf8"));
let wrong = 0;
const report = (where, what) => {
	wrong++;
	console.log(`${where}: ${what}`);
};

for (const d of await new Parser().validate(asyncapi)) {
	// Advice: there is a newer version of AsyncAPI, for instance.
	if (d.severity <= 1) report(`asyncapi ${d.path.join(".")}`, d.message);
}
const result = await new Validator().validate(JSON.parse(openapi));
if (!result.valid) {
	for (const e of [].concat(result.errors)) report(`openapi ${e.instancePath ?? ""}`, e.message ?? String(e));
}
process.exit(wrong ? 1 : 0);
