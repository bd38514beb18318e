import JSON

/// Says why a checkpoint or one of its configuration files was refused.
///
/// Files are hostile until checked, so every refusal says which file, which tensor or key in it, what is wrong and
/// what to try. Names that come from the file are quoted and cut, so that a message is always one readable line.
package struct CheckpointError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Names the part of the file at fault.
    package enum Subject: Equatable, Sendable {
        case file
        case tensor(String)
        /// The fault is at a dotted path of keys, such as `rope_scaling.factor`.
        case key(String)
    }

    /// The path of the file as it was given or found.
    package let file: String
    package let subject: Subject
    /// The problem: what was found and what was expected.
    package let problem: String
    /// The advice: what to try.
    package let advice: String

    package init(file: String, subject: Subject = .file, problem: String, advice: String) {
        self.file = file
        self.subject = subject
        self.problem = problem
        self.advice = advice
    }

    package var description: String {
        let place =
            switch subject {
            case .file: file
            case .tensor(let name): "\(file): tensor \(name.quotedForMessage)"
            case .key(let path): "\(file): key \(path.quotedForMessage)"
            }
        return "\(place): \(problem); \(advice)"
    }
}

extension CheckpointError {
    static let damagedFile =
        "the file is damaged or was not written by a safetensors library: download or convert it again"
}
