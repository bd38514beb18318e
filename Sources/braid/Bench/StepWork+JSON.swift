import Planning
import Tokenization

extension StepWork {
    /// A member of a line of JSON.
    var member: JSONMember {
        JSONMember(
            "work",
            .object(
                parts.map {
                    JSONMember(
                        $0.name, .record(["operations": .amount($0.operations), "bytes": .amount($0.bytes.rounded())]))
                }))
    }
}
