"""Receipts of sites in memory."""

import json

from intertie.common.errors import DecisionInvalid
from intertie.metasched.domain.commit import Receipt, ReceiptFacts


class PlainReceipts:
    """Reads the fake sites' receipts; the certificate says whose they are."""

    def read(self, receipt: Receipt, site: str) -> ReceiptFacts:
        if receipt.certificate != site.encode() or receipt.signature != b"signed":
            raise DecisionInvalid("it is signed by another")
        return ReceiptFacts(**json.loads(receipt.body))
