//! "Did you mean": the nearest of the known names.

/// Further than this and a suggestion would confuse more than help (BuildKit's bound, too).
const MAX_DISTANCE: usize = 2;

/// The option nearest to `value`, the first of equals; none if one matches exactly.
pub fn nearest<'a>(value: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        if option == value {
            return None;
        }
        let bound = best.map_or(MAX_DISTANCE, |(distance, _)| distance.saturating_sub(1));
        if let Some(distance) = distance(value, option, bound) {
            best = Some((distance, option));
        }
    }
    // An empty name may be the nearest, but says nothing.
    best.map(|(_, option)| option).filter(|option| !option.is_empty())
}

/// As [`nearest`], ignoring ASCII case; the answer takes the case of `value` when that has only one.
pub fn nearest_ignoring_case<'a>(value: &str, options: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower: Vec<String> = options.into_iter().map(str::to_lowercase).collect();
    let found = nearest(&value.to_lowercase(), lower.iter().map(String::as_str))?;
    Some(if value == value.to_uppercase() && value != value.to_lowercase() {
        found.to_uppercase()
    } else {
        found.to_owned()
    })
}

/// ` (did you mean X?)`, or nothing: what BuildKit appends to its messages.
pub fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or(String::new(), |name| format!(" (did you mean {name}?)"))
}

/// The Levenshtein distance, if it is at most `bound`.
pub fn distance(a: &str, b: &str, bound: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > bound {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
        if row.iter().all(|&cell| cell > bound) {
            return None;
        }
    }
    row.last().copied().filter(|&distance| distance <= bound)
}
