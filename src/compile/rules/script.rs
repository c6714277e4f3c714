//! What can be told of a shell script by looking at it, without being a shell.

/// Programs that read no variables of ours and publish nothing. Of any other it can't be told.
const PLAIN: &[&str] = &[
    "echo", "printf", "test", "[", "true", "false", ":", "sleep", "date", "exit", "set", "cd", "ls", "mkdir", "rm",
    "cp", "mv", "touch", "cat", "wc", "head", "tail", "sort", "uniq", "cut", "tr", "grep", "gzip", "tar", "if", "then",
    "else", "fi", "do", "done", "export", "pwd", "id", "hostname", "uname", "whoami", "df", "du", "chmod", "ln",
];

/// The lines that do something.
pub(super) fn lines(script: &str) -> impl Iterator<Item = &str> {
    script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// One command of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command<'s> {
    /// Its first word, without a folder.
    pub(super) program: &'s str,
    /// True if its output goes into another command, which then is the one whose failure counts.
    pub(super) is_piped: bool,
}

/// The commands of a script, as far as quotes and separators tell. Comments and the texts of here-documents may be
/// taken for commands.
pub(super) fn commands(script: &str) -> Vec<Command<'_>> {
    let mut found = Vec::new();
    for line in lines(script) {
        let (mut start, mut quote, mut chars) = (0, None, line.char_indices().peekable());
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (_, '\\') => drop(chars.next()),
                (Some(open), c) if open == c => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, ';' | '&' | '|' | '(' | '`') => {
                    let is_double = chars.next_if(|(_, next)| *next == c).is_some();
                    found.extend(command(&line[start..at], c == '|' && !is_double));
                    start = chars.peek().map_or(line.len(), |(at, _)| *at);
                }
                (None, _) => {}
            }
        }
        found.extend(command(&line[start..], false));
    }
    found
}

fn command(text: &str, is_piped: bool) -> Option<Command<'_>> {
    let is_program =
        |word: &&str| !word.contains('=') && !matches!(*word, "!" | "sudo" | "env" | "exec" | "time" | "{");
    // Without a program `env` shows all variables.
    let word = text.split_whitespace().find(is_program).or_else(|| (text.trim() == "env").then_some("env"))?;
    let program = word.rsplit('/').next().unwrap_or(word).trim_matches(['"', '\'', ')']);
    (!program.is_empty()).then_some(Command { program, is_piped })
}

/// True if the script runs a program that may do more than one can see.
pub(super) fn runs_unknown(script: &str) -> bool {
    commands(script).iter().any(|command| !PLAIN.contains(&command.program))
}

/// `NAME` of the first `$NAME` or `${NAME}` in a text that looks like a variable of the environment.
pub(super) fn variable(text: &str) -> Option<&str> {
    text.match_indices('$').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let name = rest.strip_prefix('{').unwrap_or(rest);
        let length = name.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_').count();
        let closed = name.len() == rest.len() || name[length..].starts_with(['}', ':']);
        let is_escaped = text[..at].ends_with(['\\', '$']);
        let is_name = length >= 2 && !name.starts_with(|c: char| c.is_ascii_digit());
        (is_name && closed && !is_escaped).then(|| &text[at..=at + rest.len() - name.len() + length])
    })
}

/// The lines of a script, without their margins, and what is left of each without comments and the texts of
/// here-documents; `_` stands for a text in quotes, which may go over several lines.
fn bare_lines(script: &str) -> Vec<(&str, String)> {
    let (mut found, mut until, mut quote) = (Vec::new(), None::<String>, None);
    for line in script.lines() {
        if let Some(end) = &until {
            if line.trim() == end {
                until = None;
            }
            continue;
        }
        let (mut bare, mut chars) = (String::new(), line.trim().chars().peekable());
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some('\''), '\\') => {}
                (_, '\\') => drop(chars.next()),
                (Some(open), c) if open == c => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => {
                    quote = Some(c);
                    bare.push('_');
                }
                (None, '#') if bare.is_empty() || bare.ends_with(char::is_whitespace) => break,
                (None, c) => bare.push(c),
            }
        }
        // `<<-"END"`, but neither `<<<` nor a shift in arithmetic.
        let here = line.find("<<").map(|at| line[at + 2..].trim_start_matches('-').trim_start());
        let word = here.map(|rest| rest.trim_start_matches(['"', '\'', '\\']));
        let length = |word: &str| word.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        until = word
            .map(|word| word[..length(word)].to_owned())
            .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && quote.is_none());
        found.push((line.trim(), bare));
    }
    found
}

/// What of a script only bash understands, the first of it, and its line.
pub(super) fn of_bash(script: &str) -> Option<(&str, &'static str)> {
    bare_lines(script).into_iter().find_map(|(line, bare)| Some((line, word_of_bash(&bare)?)))
}

fn word_of_bash(line: &str) -> Option<&'static str> {
    let commands = commands(line);
    let begins = |word: &str| commands.iter().any(|command| command.program == word);
    let has = |wanted: &str| line.split_whitespace().any(|word| word == wanted);
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let array = line
        .split_whitespace()
        .any(|word| word.split_once("=(").is_some_and(|(name, _)| is_name(name.trim_end_matches('+'))));
    if has("[[") {
        Some("[[")
    } else if line.contains(" <(") {
        Some("<(")
    } else if array {
        Some("=(")
    } else if begins("function") && line.contains('{') {
        Some("function")
    } else if begins("set") && has("pipefail") {
        Some("set -o pipefail")
    } else if line.trim_start().starts_with("((") {
        Some("((")
    } else if has("[") && has("==") {
        Some("==")
    } else if let Some(sign) = ["<<<", "|&", "&>"].into_iter().find(|sign| line.contains(sign)) {
        Some(sign)
    } else {
        ["source", "pushd", "popd", "shopt", "declare", "mapfile", "readarray"].into_iter().find(|word| begins(word))
    }
}

/// The first line that is `NAME = VALUE`, and its `NAME`.
pub(super) fn spaced_assignment(script: &str) -> Option<(&str, String)> {
    bare_lines(script).into_iter().find_map(|(line, bare)| {
        let (name, _) = bare.split_once(" = ")?;
        let sound = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        sound.then(|| (line, name.to_owned()))
    })
}

/// What of a script is for GitHub Actions, the first of it, and its line.
pub(super) fn of_actions(script: &str) -> Option<(&str, &'static str)> {
    const FILES: [&str; 4] = ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"];
    const SHOWN: [&str; 4] = ["$GITHUB_OUTPUT", "$GITHUB_ENV", "$GITHUB_PATH", "$GITHUB_STEP_SUMMARY"];
    lines(script).find_map(|line| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let bare = |name: &str| {
            let mut found = line.match_indices(name).filter(|(at, _)| line[..*at].ends_with('$'));
            found.any(|(at, _)| !line[at + name.len()..].starts_with(is_name))
        };
        let named = |name: &str| bare(name) || line.contains(&format!("${{{name}}}"));
        let file = FILES.iter().position(|name| named(name)).map(|index| SHOWN[index]);
        let command = ["::set-output", "::set-env", "::add-path", "::add-mask", "::save-state"]
            .into_iter()
            .find(|command| line.contains(command));
        Some((line, file.or(command)?))
    })
}

/// What templates speak of.
const WORDS: [&str; 10] =
    ["params", "inputs", "workflow", "tasks", "steps", "outputs", "secrets", "github", "matrix", "trigger"];

/// The `{{ … }}` of another system's templates in a text, from its braces on.
pub(super) fn template(text: &str) -> Option<&str> {
    let end = |at: usize| text[at..].find("}}").map_or(text.len(), |end| at + end + 2);
    text.match_indices("{{").find_map(|(at, _)| {
        let inside = text[at + 2..].trim_start_matches([' ', '=', '.']);
        let names = WORDS.iter().any(|word| inside.strip_prefix(word).is_some_and(|rest| rest.starts_with('.')));
        if text[..at].ends_with('$') { Some(&text[at - 1..end(at)]) } else { names.then(|| &text[at..end(at)]) }
    })
}

/// A `${params.who}` in a text that a shell reads, which has no variable with a dot.
pub(super) fn dotted(text: &str) -> Option<&str> {
    text.match_indices("${").find_map(|(at, _)| {
        let inside = &text[at + 2..];
        let names = WORDS.iter().any(|word| inside.strip_prefix(word).is_some_and(|rest| rest.starts_with('.')));
        let end = inside.find('}').map(|end| at + 2 + end + 1)?;
        names.then(|| &text[at..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(found: Option<(&str, &'static str)>) -> Option<&'static str> {
        found.map(|(_, word)| word)
    }

    #[test]
    fn commands_are_found_between_separators_and_outside_of_quotes() {
        let of = |script: &'static str| {
            let commands = commands(script);
            commands.iter().map(|c| format!("{}{}", c.program, if c.is_piped { "|" } else { "" })).collect::<Vec<_>>()
        };
        assert_eq!(of("pg_dump db | gzip > f"), ["pg_dump|", "gzip"]);
        assert_eq!(of("A=1 /usr/bin/make -j4 || exit 1; ls"), ["make", "exit", "ls"]);
        assert_eq!(of("echo 'a | b' \"c; d\" # e"), ["echo"]);
        assert_eq!(of("env | grep X; env A=1 make"), ["env|", "grep", "make"]);
        assert_eq!(of("# make\n\n  sudo tar c . |& tee log"), ["tar|", "tee"]);
        assert_eq!(of("X=$(curl -s u | jq .a)"), ["curl|", "jq"]);
        assert_eq!(of("a\\|b && c &"), ["a\\|b", "c"]);
    }

    #[test]
    fn files_of_actions_are_known_by_their_whole_names() {
        assert_eq!(sign(of_actions("echo a=b >> \"$GITHUB_ENV\"")), Some("$GITHUB_ENV"));
        assert_eq!(sign(of_actions("echo \"$GITHUB_ENVIRONMENT\"")), None);
    }

    #[test]
    fn what_is_of_bash_is_told_from_what_looks_like_it() {
        for (script, word) in [
            ("if [[ -f x ]]; then make; fi", "[["),
            ("cd a; source ./b", "source"),
            ("a=(1 2)", "=("),
            ("a+=(3)", "=("),
            ("diff <(a) b", "<("),
            ("function f {", "function"),
            ("function f { make; }", "function"),
            ("set -euo pipefail\nmake", "set -o pipefail"),
            ("cat <<< x", "<<<"),
            ("i=1\n((i++))", "(("),
            ("[ a == b ] && make", "=="),
            ("make |& tee log", "|&"),
            ("make &> log", "&>"),
            ("pushd a; make; popd", "pushd"),
            ("shopt -s nullglob", "shopt"),
        ] {
            assert_eq!(sign(of_bash(script)), Some(word), "{script}");
        }
        for script in [
            "grep '[[:space:]]' f",
            "echo \"source x\"",
            "# source x",
            "cat <<'EOF'\nsource x\n[[ a ]]\nEOF\nmake",
            "x=$(ls) y=$((1<<3))",
            "awk '\n{ a = (b) }\n' f",
            "f() {",
            "echo $((1<<3))\n. ./x",
            "set -eu\nmake 2>&1 | tee log",
            "awk '$1 == 2' [a]",
        ] {
            assert_eq!(of_bash(script), None, "{script}");
        }
        assert_eq!(spaced_assignment("make\n  A = 1"), Some(("A = 1", "A".to_owned())));
        for script in ["[ a = b ]", "test a = b", "awk 'x = 1'", "cat <<E\nA = 1\nE", "A=1", "echo 'one\nA = 1\n'"] {
            assert_eq!(spaced_assignment(script), None, "{script}");
        }
        assert_eq!(sign(of_actions("echo a=1 >> \"${GITHUB_ENV}\"")), Some("$GITHUB_ENV"));
        assert_eq!(sign(of_actions("# $GITHUB_ENV\necho $GITHUB")), None);
    }

    #[test]
    fn variables_and_templates_are_told_from_other_signs() {
        assert_eq!(variable("a $HOME/b"), Some("$HOME"));
        assert_eq!(variable("${XENE_CACHE}"), Some("${XENE_CACHE"));
        assert_eq!(variable("${A_B:-x}"), Some("${A_B"));
        for text in ["$1", "$x", "US$ 5", "\\$HOME", "$$HOME", "${HOME", "^a$", "$A"] {
            assert_eq!(variable(text), None, "{text}");
        }
        assert_eq!(template("echo ${{ github.ref }} x"), Some("${{ github.ref }}"));
        assert_eq!(template("echo {{inputs.parameters.x}}"), Some("{{inputs.parameters.x}}"));
        assert_eq!(dotted("echo ${params.who}!"), Some("${params.who}"));
        assert_eq!(dotted("echo ${matrix} ${steps:-x}"), None);
        assert_eq!(template("docker inspect -f '{{.State.Status}}'"), None);
        assert_eq!(template("{{"), None);
    }
}
