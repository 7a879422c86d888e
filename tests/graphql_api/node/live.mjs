// Asks a live question of the address in the arguments by both protocols, and a query beside it; writes what came as JSON.
import { createClient as createStreams } from "graphql-sse";
import { createClient as createSockets } from "graphql-ws";
import WebSocket from "ws";

const [address, Authorization, query] = process.argv.slice(2);
const streams = createStreams({ url: `http://${address}/graphql`, headers: { Authorization }, retryAttempts: 0 });
const sockets = createSockets({
  url: `ws://${address}/graphql`,
  webSocketImpl: WebSocket,
  connectionParams: { Authorization },
  retryAttempts: 0,
});

const first = async (client, text) => {
  for await (const result of client.iterate({ query: text })) return result;
};
const all = async (client, text) => {
  const results = [];
  for await (const result of client.iterate({ query: text })) results.push(result);
  return results;
};
const failure = (client, text) => all(client, text).then((results) => results, (error) => error);

const answers = {};
for (const [name, client] of Object.entries({ streams, sockets })) {
  answers[name] = {
    live: await first(client, query),
    query: await all(client, "{ service { engine } }"),
    wrong: await failure(client, "{ nonsense }"),
  };
  await client.dispose();
}
console.log(JSON.stringify(answers));
