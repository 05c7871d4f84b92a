//! Small vocabularies as model files, for tests.

use crate::model::gguf::Gguf;
use crate::model::gguf::gguf_test::Writer;
use crate::text::TextModel;

/// What goes into the file; fields may be damaged before it is written.
#[derive(Debug, Clone)]
pub(crate) struct Toy {
    pub(crate) model: &'static str,
    pub(crate) pre: Option<&'static str>,
    /// Text, kind number and score.
    pub(crate) tokens: Vec<(String, u32, f32)>,
    pub(crate) merges: Vec<String>,
    pub(crate) numbers: Vec<(&'static str, u32)>,
    pub(crate) flags: Vec<(&'static str, bool)>,
    pub(crate) template: Option<String>,
    /// Entries of the list of kinds and of scores that are left out.
    pub(crate) missing: usize,
}

const NORMAL: u32 = 1;
pub(crate) const CONTROL: u32 = 3;
pub(crate) const USER_DEFINED: u32 = 4;
const BYTE: u32 = 6;

impl Toy {
    /// Byte-level BPE: the alphabet and what these merges make.
    pub(crate) fn bpe(pre: &'static str, merges: &[&str]) -> Toy {
        let alphabet = super::bytes::alphabet();
        let letters = alphabet.iter().map(|letter| letter.to_string());
        let merged = merges.iter().map(|merge| merge.replace(' ', ""));
        let tokens = letters.chain(merged).map(|text| (text, NORMAL, 0.0)).collect();
        Toy {
            pre: Some(pre),
            merges: merges.iter().map(|text| (*text).into()).collect(),
            ..Toy::new("gpt2", tokens)
        }
    }

    /// SentencePiece: `<unk>`, BOS, EOS, the bytes, printable ASCII, and these entries in the order of their
    /// worth.
    pub(crate) fn spm(entries: &[&str]) -> Toy {
        let mut tokens: Vec<(String, u32, f32)> = vec![("<unk>".into(), 2, 0.0)];
        tokens.extend(["<s>", "</s>"].map(|text| (text.into(), CONTROL, 0.0)));
        tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), BYTE, 0.0)));
        tokens.extend(('!'..='~').chain(['\u{2581}']).map(|letter| (letter.to_string(), NORMAL, -1e6)));
        tokens.extend(entries.iter().zip(1..).map(|(text, rank)| ((*text).into(), NORMAL, -(rank as f32))));
        Toy::new("llama", tokens)
    }

    fn new(model: &'static str, tokens: Vec<(String, u32, f32)>) -> Toy {
        let (numbers, flags) = (Vec::new(), Vec::new());
        Toy { model, pre: None, tokens, merges: Vec::new(), numbers, flags, template: None, missing: 0 }
    }

    pub(crate) fn with(mut self, kind: u32, texts: &[&str]) -> Toy {
        self.tokens.extend(texts.iter().map(|text| ((*text).to_owned(), kind, 0.0)));
        self
    }

    pub(crate) fn number(mut self, key: &'static str, text: &str) -> Toy {
        let id = self.tokens.iter().position(|(token, _, _)| token == text).expect("the toy has this token");
        self.numbers.push((key, id as u32));
        self
    }

    pub(crate) fn template(mut self, template: &str) -> Toy {
        self.template = Some(template.to_owned());
        self
    }

    pub(crate) fn file(&self) -> Vec<u8> {
        let pairs = 5 + usize::from(self.pre.is_some()) + usize::from(self.template.is_some());
        let pairs = pairs + self.numbers.len() + self.flags.len();
        let mut file = Writer::header(0, pairs as u64).text("tokenizer.ggml.model").u32(8).text(self.model);
        for (key, text) in
            [("tokenizer.ggml.pre", self.pre), ("tokenizer.chat_template", self.template.as_deref())]
        {
            if let Some(text) = text {
                file = file.text(key).u32(8).text(text);
            }
        }
        for (key, number) in &self.numbers {
            file = file.text(key).u32(4).u32(*number);
        }
        for (key, flag) in &self.flags {
            file = file.text(key).u32(7).bytes(&[u8::from(*flag)]);
        }
        let known = self.tokens.len().saturating_sub(self.missing);
        file = file.text("tokenizer.ggml.tokens").u32(9).u32(8).u64(self.tokens.len() as u64);
        file = self.tokens.iter().fold(file, |file, (text, _, _)| file.text(text));
        file = file.text("tokenizer.ggml.token_type").u32(9).u32(4).u64(known as u64);
        file = self.tokens[..known].iter().fold(file, |file, (_, kind, _)| file.u32(*kind));
        file = file.text("tokenizer.ggml.scores").u32(9).u32(6).u64(known as u64);
        file = self.tokens[..known].iter().fold(file, |file, (_, _, score)| file.bytes(&score.to_le_bytes()));
        file = file.text("tokenizer.ggml.merges").u32(9).u32(8).u64(self.merges.len() as u64);
        self.merges.iter().fold(file, |file, merge| file.text(merge)).data(0)
    }

    pub(crate) fn read(&self) -> Result<TextModel, crate::text::TextError> {
        let file = self.file();
        TextModel::from_gguf(&Gguf::parse(&file).expect("a well-formed file"))
    }
}
