// The questions of docs/api.md, which a test holds true. Their year is moved by whole months, so that it ends with this one's last.
import guide from "../docs/api.md?raw";

import { moved } from "./months.js";

const END = { year: 2026, month: 9 };

/** The guide's sections: who asks, and what, with the sentence before each document as its title. */
export function sections(now = new Date()) {
  const months = (now.getUTCFullYear() - END.year) * 12 + now.getUTCMonth() + 1 - END.month;
  return guide
    .split("\n## ")
    .slice(1)
    .map((part) => ({
      audience: part.slice(0, part.indexOf("\n")),
      examples: [...part.matchAll(/([^\n]+)\n\n```graphql\n(.*?)```/gs)].map(([, before, document]) => ({
        title: before,
        query: moved(document, months),
      })),
    }));
}
