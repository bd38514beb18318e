import JSON
import Planning

extension StepWork {
    /// The work as a member of a line of JSON.
    var member: JSONMember {
        JSONMember(
            "work",
            .object(
                parts.map {
                    JSONMember(
                        $0.name, .fields(["operations": .amount($0.operations), "bytes": .amount($0.bytes.rounded())]))
                }))
    }
}
