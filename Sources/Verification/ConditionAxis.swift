import Inference
import Parallelism

/// One of the conditions under which cases serve: its name in reports, and its word in a case's name.
package struct ConditionAxis: Sendable {
    package let name: String
    /// Such as `29` or `warm`.
    package let value: @Sendable (ServingConditions) -> String
    /// Such as `chunk29` or `warm`.
    package let word: @Sendable (ServingConditions) -> String
    /// Takes over what a word says; false where it says nothing about this condition.
    let read: @Sendable (Substring, inout ServingConditions) throws(NotationError) -> Bool

    /// A condition whose values have words of their own.
    init<Value: RawRepresentable<String> & SendableMetatype>(
        _ name: String, _ path: any WritableKeyPath<ServingConditions, Value> & Sendable
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

    /// A number, written behind the name.
    init(
        _ name: String, _ path: any WritableKeyPath<ServingConditions, Int> & Sendable, legal: String,
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
