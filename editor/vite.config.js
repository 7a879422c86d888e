// The editor as files that the service serves by itself: nothing in them is from any other host.
import { defineConfig } from "vite";

export default defineConfig({
  // What it warns of is in others' packages.
  logLevel: "error",
  base: "/graphql/editor/",
  build: {
    outDir: "../graphql_api/built_editor",
    emptyOutDir: true,
    // The code editor is one piece, and large; it is served from next door and kept by the browser.
    chunkSizeWarningLimit: 5_000,
    // As data: addresses they would need a policy of their own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  worker: { format: "es" },
});
