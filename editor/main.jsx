// The page at /graphql: GraphiQL with a field for the key, and the questions of docs/api.md beside it.
import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import "./page.css";

import { useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import { createClient } from "graphql-sse";
import { useState } from "react";
import { createRoot } from "react-dom/client";

import { sections } from "./examples.js";

const KEPT = "key";
// What is of this tab alone: another one may ask with another key.
let key = sessionStorage.getItem(KEPT) ?? "";

function headersOf(options) {
  return { ...(key && { Authorization: `Bearer ${key}` }), ...options?.headers };
}

// A live question is a stream of events; all else is one answer.
function fetcher(asked, options) {
  const headers = headersOf(options);
  if (isLive(asked, options)) {
    return createClient({ url: "/graphql", headers, retryAttempts: 0 }).iterate(asked);
  }
  return fetch("/graphql", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/graphql-response+json", ...headers },
    body: JSON.stringify(asked),
  }).then((response) => response.json());
}

function isLive({ operationName }, options) {
  const operations = options?.documentAST?.definitions.filter((each) => each.kind === "OperationDefinition") ?? [];
  const meant = operations.find((each) => !operationName || each.name?.value === operationName);
  return meant?.operation === "subscription";
}

function Examples() {
  const { addTab } = useGraphiQLActions();
  const queryEditor = useGraphiQL((state) => state.queryEditor);
  const show = (query) => {
    addTab();
    queryEditor.setValue(query);
  };
  return (
    <section>
      <h2 className="examples-title">Questions</h2>
      {sections().map(({ audience, examples }) => (
        <details key={audience} open>
          <summary>{audience}</summary>
          <ul>
            {examples.map(({ title, query }) => (
              <li key={title}>
                <button type="button" onClick={() => show(query)}>
                  {title}
                </button>
              </li>
            ))}
          </ul>
        </details>
      ))}
    </section>
  );
}

const EXAMPLES = { title: "Questions", icon: () => <span aria-hidden="true">?</span>, content: Examples };

function Page() {
  const [typed, setTyped] = useState(key);
  const keep = (event) => {
    key = event.target.value.trim();
    sessionStorage.setItem(KEPT, key);
    setTyped(event.target.value);
  };
  return (
    <>
      <header>
        <h1>Metering</h1>
        <label>
          Key{" "}
          <input type="password" autoComplete="off" placeholder="the bearer token" value={typed} onChange={keep} />
        </label>
        <small>kept in this browser tab only</small>
      </header>
      <GraphiQL
        fetcher={fetcher}
        plugins={[EXAMPLES, HISTORY_PLUGIN]}
        visiblePlugin={EXAMPLES}
        defaultQuery={"{\n  service {\n    status version engine\n    checks { name status detail }\n  }\n}\n"}
        isHeadersEditorEnabled
        shouldPersistHeaders={false}
      >
        <GraphiQL.Logo>{" "}</GraphiQL.Logo>
      </GraphiQL>
    </>
  );
}

createRoot(document.getElementById("editor")).render(<Page />);
