#!/usr/bin/env node
// One cluster from first to last: refused, created, followed until it is ready, listed, deleted.

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs, promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';

const USAGE = `usage: tour.js --address HOST:PORT --server-name NAME --ca FILE --cert FILE --key FILE
               --name CLUSTER --image IMAGE [--tenant TENANT]`;
const CALL_S = 60;
const CREATE_S = 120;
const FOLLOW_S = 600;

// A call that did not get through is made again as it was, so with the same request_id: it may
// have been carried out, and nothing is taken twice.
const RETRY = {
  methodConfig: [{
    name: [{ service: 'intertie.api.cluster.v1.Clusters' }],
    retryPolicy: {
      maxAttempts: 4,
      initialBackoff: '0.2s',
      maxBackoff: '2s',
      backoffMultiplier: 2,
      retryableStatusCodes: ['UNAVAILABLE'],
    },
  }],
};

const types = fromJSON(
  JSON.parse(readFileSync(new URL('protos.json', import.meta.url))),
  { longs: Number, enums: String, defaults: true },
);
const { Clusters } = grpc.loadPackageDefinition(types).intertie.api.cluster.v1;

function connect({ address, 'server-name': serverName, ca, cert, key }) {
  const tls = grpc.credentials.createSsl(readFileSync(ca), readFileSync(key), readFileSync(cert));
  return new Clusters(address, tls, {
    'grpc.ssl_target_name_override': serverName,
    'grpc.default_authority': serverName,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config': JSON.stringify(RETRY),
  });
}

// One machine for ten minutes. What is not deleted ends by itself.
function specification(image, vcpus) {
  return {
    groups: [{
      name: 'node',
      count: 1,
      environment: { image },
      allocation: { vcpus, memory_mib: 112, disk_mib: 256 },
    }],
    networks: [{ name: 'lan', subnet: '10.1.0.0/24' }],
    lease: { duration: { seconds: 600 } },
  };
}

class Tour {
  constructor(client, { tenant, name, image }) {
    this.client = client;
    this.parent = `-/tenants/${tenant}`;
    this.id = name;
    this.image = image;
  }

  async run() {
    for (const vcpus of [0, 200]) {
      await this.expectRefusal(vcpus);
    }
    const { name } = await this.create(1);
    console.log(`created ${name}`);
    const { updates } = await this.follow(name, 'ACTIVE');
    console.log(`ready after ${updates} updates`);
    for await (const cluster of this.list()) {
      console.log(`listed ${cluster.name}`);
    }
    await this.call('Delete', { name });
    const { cluster } = await this.follow(name, 'CANCELLED');
    console.log(`deleted ${name} ${cluster.state}`);
  }

  async expectRefusal(vcpus) {
    let admitted;
    try {
      admitted = await this.create(vcpus);
    } catch (error) {
      if (!detailsOf(error)['google.rpc.ErrorInfo']) throw error;
      explain(error).forEach((line) => console.log(line));
      return;
    }
    throw new Error(`${admitted.name} was admitted with ${vcpus} vCPUs`);
  }

  create(vcpus) {
    return this.call('Create', {
      parent: this.parent,
      cluster_id: this.id,
      spec: specification(this.image, vcpus),
      request_id: randomUUID(),
    }, CREATE_S);
  }

  // The cluster once it is in the wanted state, and how many updates that took. A stream that
  // breaks is opened again: it begins with the cluster as it is now.
  async follow(name, wanted) {
    const deadline = Date.now() + FOLLOW_S * 1000;
    let updates = 0;
    for (;;) {
      const stream = this.client.Watch({ name }, { deadline });
      stream.on('error', () => {}); // also emitted when it is cancelled, after the loop's end
      try {
        for await (const cluster of stream) {
          updates += 1;
          if (cluster.state === wanted) return { cluster, updates };
        }
        throw new Error(`${name} is over and never was ${wanted}`);
      } catch (error) {
        if (error.code !== grpc.status.UNAVAILABLE) throw error;
      } finally {
        stream.cancel();
      }
    }
  }

  async* list() {
    const request = { parent: this.parent };
    do {
      const page = await this.call('List', request);
      yield* page.clusters;
      request.page_token = page.next_page_token;
    } while (request.page_token);
  }

  call(method, request, seconds = CALL_S) {
    const deadline = Date.now() + seconds * 1000;
    return promisify(this.client[method]).call(this.client, request, { deadline });
  }
}

// A refusal, a line for each thing that is wrong. The status says which reason it is, by which a
// program decides; its other details say where it lies and what would be right.
function explain(error) {
  const details = detailsOf(error);
  const info = details['google.rpc.ErrorInfo'];
  if (!info) return [`failed with ${grpc.status[error.code]}: ${error.details}`];

  const { reason, metadata } = info;
  const bad = details['google.rpc.BadRequest'];
  if (bad) {
    return bad.field_violations.map((each) => `refused ${reason} field=${each.field}: ${each.description}`);
  }
  const short = details['intertie.api.types.v1.Shortfalls'];
  if (short) {
    return short.shortfalls.map((each) => `refused ${reason} site=${each.site} resource=${each.resource}`
      + ` wanted=${each.wanted} available=${each.available}: ${each.message}`);
  }
  const fields = Object.entries(metadata).sort().map(([key, value]) => ` ${key}=${value}`);
  return [`refused ${reason}${fields.join('')}: ${error.details}`];
}

// Details by their type; those of a type that this program does not know are left out.
function detailsOf(error) {
  const [packed] = error.metadata?.get('grpc-status-details-bin') ?? [];
  if (!packed) return {};
  const known = {};
  for (const { type_url: url, value } of types['google.rpc.Status'].deserialize(packed).details) {
    const name = url.slice(url.lastIndexOf('/') + 1);
    if (types[name]) known[name] = types[name].deserialize(value);
  }
  return known;
}

function readArguments() {
  const required = ['address', 'server-name', 'ca', 'cert', 'key', 'name', 'image'];
  const options = Object.fromEntries([...required, 'tenant'].map((name) => [name, { type: 'string' }]));
  options.help = { type: 'boolean', short: 'h' };
  const { values } = parseArgs({ options });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const missing = required.filter((name) => !values[name]);
  if (missing.length) throw new TypeError(`--${missing[0]} is missing`);
  return { tenant: 'demo', ...values };
}

let given;
try {
  given = readArguments();
} catch (error) {
  console.error(`${error.message}\n${USAGE}`);
  process.exit(2);
}
const client = connect(given);
try {
  await new Tour(client, given).run();
} catch (error) {
  const lines = error.metadata ? explain(error) : [error.message];
  lines.forEach((line) => console.error(line));
  process.exitCode = 1;
} finally {
  client.close();
}
