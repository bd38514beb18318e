/// Says why a tokenizer could not be loaded. `place` is the path of keys inside the file.
package enum TokenizerError: Error, Equatable, CustomStringConvertible {
    /// The file is missing, is no regular file, or is too large or not readable.
    case unreadable(file: String, reason: String)
    /// The file contradicts its own format.
    case invalid(file: String, place: String, problem: String)
    /// The file requires something that is not supported; tokens would silently differ if it were ignored.
    case unsupported(file: String, place: String, found: String, supported: String)

    package var description: String {
        switch self {
        case .unreadable(let file, let reason): "cannot read \(file): \(reason)"
        case .invalid(let file, let place, let problem): "\(file) is not valid at \(place): \(problem)"
        case .unsupported(let file, let place, let found, let supported):
            "\(file): \(place) is \(found), which is not supported; supported: \(supported)"
        }
    }
}
