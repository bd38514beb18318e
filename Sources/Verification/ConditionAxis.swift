import Inference
import Parallelism

/// A condition axis is one dimension of the verification matrix besides the parallel configuration: its name in
/// reports, and its word in a case's notation.
package struct ConditionAxis<Conditions>: Sendable {
    package let name: String
    /// Returns the value of the dimension, such as `29` or `warm`.
    package let value: @Sendable (Conditions) -> String
    /// Returns the word for that value, such as `chunk29` or `warm`.
    package let word: @Sendable (Conditions) -> String
    /// Sets the value that a word names, and returns `false` if the word belongs to another dimension.
    let read: @Sendable (Substring, inout Conditions) throws(NotationError) -> Bool

    /// Creates a dimension whose values are words.
    init<Value: RawRepresentable<String> & SendableMetatype>(
        _ name: String, _ path: any WritableKeyPath<Conditions, Value> & Sendable
    ) {
        self.name = name
        value = { $0[keyPath: path].rawValue }
        word = value
        read = { word, conditions in
            guard let value = Value(rawValue: String(word)) else { return false }
            conditions[keyPath: path] = value
            return true
        }
    }

    /// Creates a dimension whose values are numbers, written after the name.
    init(
        _ name: String, _ path: any WritableKeyPath<Conditions, Int> & Sendable, legal: String,
        isLegal: @escaping @Sendable (Int) -> Bool
    ) {
        self.name = name
        value = { "\($0[keyPath: path])" }
        word = { "\(name)\($0[keyPath: path])" }
        read = { (word, conditions) throws(NotationError) in
            guard word.hasPrefix(name) else { return false }
            guard let value = Int(word.dropFirst(name.count)), isLegal(value) else {
                throw NotationError("'\(word)': the number of \(name) is \(legal)")
            }
            conditions[keyPath: path] = value
            return true
        }
    }
}
