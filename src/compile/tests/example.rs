//! The examples of a page, as documents that can be read.

use xene_schemas::diagnostic::Severity;

/// One block of a page.
#[derive(Debug)]
pub(super) struct Example {
    /// True below `## Wrong`, false below `## Right`.
    pub(super) is_wrong: bool,
    pub(super) language: Language,
    /// The whole document, or the script.
    pub(super) text: String,
    /// What its comments say of its lines; sorted.
    pub(super) marks: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Yaml,
    Json,
    Shell,
}

/// `# error: XE0012`: this line (or if the comment stands alone, the next) has that problem.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) line: u32,
    pub(super) code: String,
    pub(super) severity: Severity,
}

/// All examples of a page.
pub(super) fn examples(page: &str) -> Vec<Example> {
    let (mut found, mut is_wrong, mut block): (_, _, Option<(Language, String)>) = (Vec::new(), None, None);
    for line in page.lines() {
        match (&mut block, line) {
            (None, "## Wrong") => is_wrong = Some(true),
            (None, "## Right") => is_wrong = Some(false),
            (None, "```yaml") => block = Some((Language::Yaml, String::new())),
            (None, "```json") => block = Some((Language::Json, String::new())),
            (None, "```sh") => block = Some((Language::Shell, String::new())),
            (None, line) => assert!(!line.starts_with("```"), "{line}: of what kind is this block?"),
            (Some(_), "```") => {
                let (language, text) = block.take().unwrap();
                found.push(example(is_wrong.expect("a block stands below a heading"), language, &text));
            }
            (Some((_, text)), line) => text.extend([line, "\n"]),
        }
    }
    found
}

fn example(is_wrong: bool, language: Language, text: &str) -> Example {
    let text = match language {
        Language::Yaml => whole(text),
        Language::Json | Language::Shell => text.to_owned(),
    };
    let mut marks: Vec<Mark> = text.lines().zip(1..).flat_map(|(line, number)| marks(line, number)).collect();
    marks.sort();
    assert!(is_wrong || marks.is_empty(), "what is right has no marks:\n{text}");
    // JSON has no comments.
    let without = |line: &str| {
        let line = line.split(" # error: ").next().unwrap_or_default();
        line.split(" # warning: ").next().unwrap_or_default().to_owned() + "\n"
    };
    let text = if language == Language::Json { text.lines().map(without).collect() } else { text };
    Example { is_wrong, language, text, marks }
}

fn marks(line: &str, number: u32) -> Vec<Mark> {
    for (word, severity) in [("# error: ", Severity::Error), ("# warning: ", Severity::Warning)] {
        if let Some((before, codes)) = line.split_once(word) {
            let line = if before.trim().is_empty() { number + 1 } else { number };
            return codes.split(' ').map(|code| Mark { line, code: code.to_owned(), severity }).collect();
        }
    }
    Vec::new()
}

const HEADER: &str = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: example}\n";

/// Most examples are a part of a document, which its keys tell: what has `steps` is the inside of a task, what has
/// `tasks` of a pipeline, what has `pipelines` or `triggers` of `spec`. The rest is laid around it.
fn whole(text: &str) -> String {
    let keys: Vec<&str> = text.lines().filter_map(|line| line.split_once(':')).map(|(key, _)| key).collect();
    let has = |key: &str| keys.contains(&key);
    let task = "pipelines: {main: {tasks: {say: {steps: [echo]}}}}\n";
    if ["apiVersion", "kind", "metadata"].into_iter().any(has) {
        return text.to_owned();
    }
    if has("spec") {
        return format!("{HEADER}{text}");
    }
    let (around, inside) = if has("steps") {
        ("spec:\n  pipelines:\n    main:\n      tasks:\n        say:\n", text.to_owned())
    } else if has("tasks") {
        ("spec:\n  pipelines:\n    main:\n", text.to_owned())
    } else if has("pipelines") {
        ("spec:\n", text.to_owned())
    } else if has("triggers") {
        let names = text.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(':'));
        let names = names.map(|(name, _)| name).filter(|name| !name.starts_with(' '));
        let names = names.collect::<Vec<_>>().join(", ");
        ("spec:\n", format!("{text}pipelines: {{main: {{triggers: [{names}], tasks: {{say: {{steps: [echo]}}}}}}}}\n"))
    } else if has("params") || has("env") {
        ("spec:\n", format!("{text}{task}"))
    } else {
        return text.to_owned();
    };
    let depth = around.lines().last().map_or(0, |line| line.len() - line.trim_start().len() + 2);
    let indent = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{}{line}\n", " ".repeat(depth)) };
    format!("{HEADER}{around}{}", inside.lines().map(indent).collect::<String>())
}
