// The protos that are named, and what they import, as one JSON file: generate.js FOLDERS PROTO... >FILE
// FOLDERS are those that imports are looked for in, with colons between.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import protobuf from 'protobufjs';

const descriptor = createRequire(import.meta.url)('protobufjs/google/protobuf/descriptor.json');
// What google/api extends; protobufjs has it, but does not offer it for import by itself.
protobuf.common('descriptor', descriptor.nested.google.nested.protobuf.nested);

const [folders, ...protos] = process.argv.slice(2);
const root = new protobuf.Root();
root.resolvePath = (origin, target) => folders.split(':')
  .map((folder) => join(folder, target))
  .find(existsSync) ?? target;
root.loadSync(protos, { keepCase: true }).resolveAll();
process.stdout.write(JSON.stringify(root));
