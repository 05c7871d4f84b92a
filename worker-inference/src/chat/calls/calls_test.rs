use super::*;

fn parted(text: &str, format: CallFormat) -> (String, Vec<(String, String)>) {
    let (content, calls) = tool_calls(text, format);
    (content, calls.into_iter().map(|call| (call.name, call.arguments)).collect())
}

fn one(name: &str, arguments: &str) -> Vec<(String, String)> {
    vec![(name.into(), arguments.into())]
}

#[test]
fn hermes() {
    let text =
        "I look.\n<tool_call>\n{\"name\": \"find\", \"arguments\": {\"z\": 1, \"a\": \"ü\"}}\n</tool_call>";
    let expected = ("I look.".to_owned(), one("find", r#"{"z":1,"a":"ü"}"#));
    assert_eq!(parted(text, CallFormat::Hermes), expected);
    let cut_off = text.trim_end_matches("\n</tool_call>");
    assert_eq!(parted(cut_off, CallFormat::Hermes), expected);
    let two = format!("{text}\n<tool_call>{{\"name\": \"stop\", \"arguments\": \"{{}}\"}}</tool_call>");
    assert_eq!(parted(&two, CallFormat::Hermes).1[1], ("stop".into(), "{}".into()));
    for broken in ["<tool_call>{\"name\": }</tool_call>", "<tool_call>", "</tool_call>", "plain", ""] {
        assert_eq!(parted(broken, CallFormat::Hermes), (broken.to_owned(), vec![]));
    }
    let bare = "{\"name\": \"find\", \"arguments\": {\"q\": 1}}";
    assert_eq!(parted(bare, CallFormat::Hermes), (String::new(), one("find", r#"{"q":1}"#)));
    let mixed = "<tool_call>no</tool_call> <tool_call>{\"name\": \"a\"}</tool_call>";
    assert_eq!(parted(mixed, CallFormat::Hermes), ("<tool_call>no</tool_call>".into(), one("a", "{}")));
}

#[test]
fn llama() {
    let call = r#"{"name": "find", "parameters": {"q": "x"}}"#;
    let marked = format!("<|python_tag|>{call}");
    for text in [call, &marked, &format!(" {call}\n")] {
        assert_eq!(parted(text, CallFormat::Llama3), (String::new(), one("find", r#"{"q":"x"}"#)));
    }
    assert_eq!(parted(&format!("{call}; {call}"), CallFormat::Llama3).1.len(), 2);
    for text in [&format!("Use {call}")[..], "{\"name\": 3}", "{\"x\": 1}", &call[..20], "12", "\"name\""] {
        assert_eq!(parted(text, CallFormat::Llama3), (text.to_owned(), vec![]));
    }
}

#[test]
fn mistral() {
    let array = r#"[{"name": "find", "arguments": {"q": 1}, "id": "abcdefghi"}]"#;
    for text in [array.to_owned(), format!("[TOOL_CALLS]{array}"), format!(" [TOOL_CALLS] {array}")] {
        let (content, calls) = tool_calls(&text, CallFormat::Mistral);
        assert_eq!((content.as_str(), calls.len()), ("", 1), "{text}");
        assert_eq!((calls[0].id.as_str(), calls[0].arguments.as_str()), ("abcdefghi", r#"{"q":1}"#));
    }
    let newer = "Well.[TOOL_CALLS]find[ARGS]{\"q\": 1}[TOOL_CALLS]stop[CALL_ID]xyz[ARGS]{}";
    let (content, calls) = tool_calls(newer, CallFormat::Mistral);
    assert_eq!((content.as_str(), calls.len(), calls[1].id.as_str()), ("Well.", 2, "xyz"));
    for text in ["[1, 2]", "[TOOL_CALLS]", "[TOOL_CALLS][", "a[ARGS]", "[ARGS]{}", "plain [x]"] {
        assert_eq!(parted(text, CallFormat::Mistral), (text.to_owned(), vec![]));
    }
}

#[test]
fn gemma() {
    let arguments = r#"{"q": "it's \"x\"\n", "n": -2.5, "l": [1, true, null], "d": {"k": "v"}}"#;
    let call = r#"find(q='it\'s "x"\n', n=-2.5, l=[1, True, None], d={"k": 'v'})"#;
    for text in [call.to_owned(), format!("[{call}]"), format!("```tool_code\nprint({call})\n```")] {
        assert_eq!(parted(&text, CallFormat::Gemma), (String::new(), one("find", arguments)), "{text}");
    }
    let json = "Sure:\n```json\n{\"name\": \"find\", \"parameters\": {\"q\": 1}}\n```";
    assert_eq!(parted(json, CallFormat::Gemma), ("Sure:".into(), one("find", r#"{"q":1}"#)));
    for text in ["find(1)", "find(", "f(a=", "f(a='", "f(a=[", "f(a={1:2})", "hello world", "```", "f(a=1) x"]
    {
        assert_eq!(parted(text, CallFormat::Gemma), (text.to_owned(), vec![]), "{text}");
    }
}

#[test]
fn no_text_is_too_strange() {
    let pieces = [
        "<tool_call>",
        "</tool_call>",
        "{",
        "}",
        "[",
        "]",
        "\"name\"",
        ":",
        "\"f\"",
        ",",
        "(",
        ")",
        "=",
        "'",
        "\\",
        "ü",
        "[ARGS]",
        "[TOOL_CALLS]",
        "```",
        "\n",
        "f",
        "1",
        "\"arguments\"",
        "\"",
    ];
    let mut state = 7_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..state >> 60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for format in [CallFormat::Hermes, CallFormat::Llama3, CallFormat::Mistral, CallFormat::Gemma] {
            let (content, calls) = tool_calls(&text, format);
            assert!(calls.is_empty() == (content == text) || content.len() <= text.len());
        }
    }
    for deep in ["[".repeat(100_000), "f(a=".to_owned() + &"[".repeat(100_000), "{\"name\":".repeat(50_000)] {
        for format in [CallFormat::Hermes, CallFormat::Llama3, CallFormat::Mistral, CallFormat::Gemma] {
            assert!(tool_calls(&deep, format).1.is_empty());
        }
    }
}

#[test]
fn a_template_says_which_format() {
    assert_eq!(CallFormat::of_template("…[TOOL_CALLS]…"), CallFormat::Mistral);
    assert_eq!(CallFormat::of_template("<|im_start|>… <tool_call>"), CallFormat::Hermes);
    assert_eq!(CallFormat::of_template("<|start_header_id|>"), CallFormat::Llama3);
    assert_eq!(CallFormat::of_template("<start_of_turn>"), CallFormat::Gemma);
}
