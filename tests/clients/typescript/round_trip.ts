// A round trip with a client whose types openapi-typescript has made: what a program of a user would look like.
//
// `node built/round_trip.js URL PICTURE`. It prints one line of JSON with what it has seen; test_clients.py has tsc
// check the types of all this, and then looks at what was seen.

import { readFile } from "node:fs/promises";
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./api.js";

type Schemas = components["schemas"];
type Failure = Schemas["ErrorEnvelope"];

const [url = "", picture = ""] = process.argv.slice(2);

/** The answer of a request that has to work. */
function worked<T>({ data, error }: { data?: T; error?: Failure }): T {
  if (data === undefined) throw new Error(JSON.stringify(error));
  return data;
}

/** The error of a request that has to be refused. */
function refused({ error }: { error?: Failure }): Failure["error"] {
  if (error === undefined) throw new Error("It was not refused.");
  return error.error;
}

/** The client of a new organisation's Admin. */
async function logIn(): Promise<Client<paths>> {
  const body: Schemas["Registration"] = {
    email: "typescript@example.com",
    password: "correct Horse 7",
    first_name: "Tess",
    last_name: "Lee",
  };
  const { access_token } = worked(await createClient<paths>({ baseUrl: url }).POST("/api/v1/auth/register", { body }));
  return createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${access_token}` } });
}

async function create(client: Client<paths>, number: number) {
  const body: Schemas["PropertyCreate"] = {
    address: `${number} Congress Avenue`,
    city: "Austin",
    state: "TX",
    zip_code: "78701",
    property_type: "condo",
    price: `${number}00000.00`,
    bathrooms: 1.5,
  };
  const header = { "Idempotency-Key": `typescript-${number}` };
  return worked(await client.POST("/api/v1/properties", { body, params: { header } }));
}

/** The condos of the city from the dearest down, a page at a time. */
async function allIds(client: Client<paths>) {
  const ids = [];
  let cursor: string | null = null;
  do {
    const filters = { property_type: "condo", city: "austin", min_price: "100000.00" } as const;
    const query = { ...filters, sort: "-price", page_size: 2, ...(cursor === null ? {} : { cursor }) };
    const page: Schemas["PropertyPage"] = worked(await client.GET("/api/v1/properties", { params: { query } }));
    for (const { id } of page.items) if (id !== undefined) ids.push(id);
    cursor = page.next_cursor;
  } while (cursor !== null);
  return ids;
}

/** What a 422 says: each field with its code. */
async function wrongFields(client: Client<paths>) {
  const body: Schemas["PropertyCreate"] = {
    address: "x".repeat(501),
    city: "Austin",
    state: "TX",
    zip_code: "78701",
    property_type: "land",
    price: -1,
  };
  const { details } = refused(await client.POST("/api/v1/properties", { body }));
  return Object.fromEntries((details.errors ?? []).map(({ field, type }) => [field, type]));
}

/** A change with the tag of what was read, and one more with the old tag. */
async function race(client: Client<paths>, property_id: number) {
  const path = { property_id };
  const { response } = await client.GET("/api/v1/properties/{property_id}", { params: { path } });
  const params = { path, header: { "If-Match": response.headers.get("ETag") ?? "" } };
  const change = (body: Schemas["PropertyUpdate"]) =>
    client.PATCH("/api/v1/properties/{property_id}", { params, body });
  const { price } = worked(await change({ price: "150000.00" }));
  return { price, refused: refused(await change({ description: "late" })).type };
}

async function upload(client: Client<paths>, property_id: number) {
  const form = new FormData();
  form.set("file", new Blob([await readFile(picture)], { type: "image/png" }), "house.png");
  form.set("title", "Front");
  form.set("is_primary", "true");
  return worked(
    await client.POST("/api/v1/properties/{property_id}/images", {
      params: { path: { property_id } },
      body: { file: "" },
      bodySerializer: () => form,
    }),
  );
}

async function convert(client: Client<paths>, property_id: number) {
  const person = { first_name: "Grace", last_name: "Park", source: "referral" } as const;
  const lead = worked(await client.POST("/api/v1/leads", { body: person }));
  const body: Schemas["DealCreate"] = { property_id, deal_type: "sale", value: "140000.00" };
  return worked(
    await client.POST("/api/v1/leads/{lead_id}/convert", { params: { path: { lead_id: lead.id } }, body }),
  );
}

const client = await logIn();
const listings = [await create(client, 1), await create(client, 2), await create(client, 3)] as const;
const again = await create(client, 3);
const raced = await race(client, listings[0].id);
const image = await upload(client, listings[0].id);
const deal = await convert(client, listings[1].id);
const stats = worked(await client.GET("/api/v1/leads/stats"));
const exported = worked(await client.GET("/api/v1/deals/export", { parseAs: "text" }));
const pages = await allIds(client);
const last = { params: { path: { property_id: listings[2].id } } };
const deleted = await client.DELETE("/api/v1/properties/{property_id}", last);
const gone = refused(await client.GET("/api/v1/properties/{property_id}", last));

console.log(
  JSON.stringify({
    is_repeated: again.id === listings[2].id,
    pages: pages.map((id) => listings.findIndex((listing) => listing.id === id)),
    ...raced,
    fields: await wrongFields(client),
    image: [image.title, image.is_primary, image.thumbnail_url !== null],
    deal: [deal.deal_type, deal.stage, deal.value, deal.lead_id !== null],
    converted: stats.by_status["converted"],
    exported: exported.split("\r\n")[1]?.startsWith(`${deal.id},`),
    deleted: deleted.response.status === 204,
    gone: gone.type,
  }),
);
