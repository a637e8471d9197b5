// decode.mjs FILE - what npm's pprof-format reads in a profile, as lines for the test to compare.
// Run it in the directory that has node_modules.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { gunzipSync } from 'node:zlib';

const { Profile } = createRequire(process.cwd() + '/')('pprof-format');
const p = Profile.decode(gunzipSync(readFileSync(process.argv[2])));
const text = i => p.stringTable.strings[Number(i)];
const say = (...words) => console.log(words.join(' '));

p.sampleType.forEach((t, i) =>
  say('type', text(t.type), text(t.unit), p.sample.reduce((sum, s) => sum + BigInt(s.value[i]), 0n)));
say('period', text(p.periodType.type), text(p.periodType.unit), p.period);
say('default', text(p.defaultSampleType));
say('time', p.timeNanos, 'duration', p.durationNanos);
say('drop', text(p.dropFrames), 'keep', text(p.keepFrames));
for (const c of p.comment) say('comment', text(c));
for (const m of p.mapping)
  say('mapping', m.id, m.memoryStart, m.memoryLimit, m.fileOffset, text(m.filename), text(m.buildId));
for (const l of p.location)
  say('location', l.id, l.mappingId, l.address, l.line.map(x => x.functionId).join(','));
for (const f of p.function) say('function', f.id, JSON.stringify(text(f.name)));
for (const s of p.sample)
  for (const l of s.label) say('label', text(l.key), text(l.str));
